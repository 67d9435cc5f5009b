"""Compare the callers' answers, Slurm's jobs, the records and the messages of each task."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import NotificationStatus, TaskRecord, utc_now
from app.slurm.accounting import AccountingState
from app.slurm.answers import read_jobs, require_jobs
from app.slurm.reading import identify_controller_job
from app.store import TaskStore
from tests.conftest import Cluster, until
from tests.support.chaos.callers import Callers
from tests.support.chaos.stage import Stage

STALL_TIMEOUT = 300.0  # seconds in which some progress must be made, until all has settled


@dataclass
class Evidence:
    """What is known of each task, by uuid.

    Attributes:
        answered: The id of the job in the answer to its caller.
        jobs: The ids of its jobs, by Slurm's own lists.
        records: Its record.
        messages: The ids of the messages that were delivered, one for each delivery.
    """

    answered: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, set[int]] = field(default_factory=dict)
    records: Mapping[str, TaskRecord] = field(default_factory=dict)
    messages: Mapping[str, Sequence[str]] = field(default_factory=dict)


def find_violations(evidence: Evidence) -> list[str]:
    """Return a sentence for each way in which a task breaks a promise."""
    return [
        f"{name} {words}"
        for name in sorted({*evidence.answered, *evidence.jobs, *evidence.records})
        for words in _judge(
            evidence.answered.get(name),
            evidence.jobs.get(name, set()),
            evidence.records.get(name),
            evidence.messages.get(name, ()),
        )
    ]


def _judge(
    answered: int | None, jobs: set[int], record: TaskRecord | None, messages: Sequence[str]
) -> Iterable[str]:
    recorded = record.slurm_job_id if record is not None else None
    if len(jobs) > 1:
        yield f"ran more than once: {sorted(jobs)}"
    if jobs and recorded not in jobs:
        yield f"is job {sorted(jobs)}, but its record says {recorded}"
    if answered is not None and jobs != {answered}:
        yield f"was answered with job {answered}, but Slurm has {sorted(jobs)}"
    if record is None or (recorded is None and not jobs and record.is_freed):
        return
    if record.slurm_job_state is not JobState.COMPLETED:
        yield f"is recorded as {record.slurm_job_state}"
    if [item.status for item in record.notifications] != [NotificationStatus.SENT]:
        yield f"has the messages {[item.status.value for item in record.notifications]}"
    if len(set(messages)) != 1:
        yield f"was announced under {len(set(messages))} ids"


def settle(stage: Stage, callers: Callers, stall_timeout: float = STALL_TIMEOUT) -> list[str]:
    """Wait until nothing is reserved, nothing is open, and every message is out; return what does not end."""
    store, uuids = stage.store, callers.list_uuids()
    tomorrow = utc_now() + timedelta(days=1)
    waits: list[tuple[str, Callable[[], Sized]]] = [
        ("reservations", lambda: store.list_reservations(tomorrow)),
        ("open jobs", store.list_open_jobs),
        ("messages that are not out", lambda: _list_unsent(store, uuids)),
    ]
    faulty = []
    for what, list_left in waits:
        try:
            _wait_for_none(list_left, what, stall_timeout)
        except AssertionError as error:
            faulty.append(str(error))
    return faulty


def gather_evidence(stage: Stage, callers: Callers, began: datetime) -> Evidence:
    """Read what all sides know of the tasks of these callers."""
    uuids = set(callers.list_uuids())
    jobs: defaultdict[str, set[int]] = defaultdict(set)
    for job in _read_jobs(stage.cluster, began):
        if job.name in uuids:
            jobs[job.name].add(job.job_id)
    records = stage.store.find_by_uuids(sorted(uuids))
    return Evidence(callers.answered, jobs, records, stage.receiver.messages)


def _wait_for_none(list_left: Callable[[], Sized], what: str, stall_timeout: float) -> None:
    """Wait as long as there are fewer and fewer."""
    while count := len(list_left()):
        until(lambda: len(list_left()) < count, stall_timeout, f"fewer than {count} {what}")


def _list_unsent(store: TaskStore, uuids: Sequence[str]) -> list[str]:
    return [
        record.uuid
        for record in store.find_by_uuids(uuids).values()
        if record.slurm_job_id is not None
        and [item.status for item in record.notifications] != [NotificationStatus.SENT]
    ]


def _read_jobs(cluster: Cluster, began: datetime) -> list[SlurmJob]:
    """Return all jobs of the user by Slurm's own lists, which are read otherwise than by the service."""
    client = cluster.client()
    listed = read_jobs(require_jobs(client.send_raw_list(0)), identify_controller_job)
    accounted, accounting = client._accounting.read_jobs_of_users([cluster.user], began, None)
    client.close()
    assert accounting in (AccountingState.CURRENT, AccountingState.NONE), accounting
    return [*(job for job in listed if job.username == cluster.user), *accounted]
