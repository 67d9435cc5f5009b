"""Replace the uuids in the option `dependency` by the jobs of these tasks, when a task is submitted.

A task that has ended is judged by its record, and never passed on: Slurm forgets jobs minutes after their
end. Then 22.05 takes every dependency on them for fulfilled, and 24.11 refuses `afterok` and `afternotok`
(both seen). A dependency that can no longer be fulfilled is an error, because with Slurm the job would wait
for ever.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import NamedTuple, Protocol

from app.errors import InvalidRequest, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.job_identity import is_same_job, to_open_job
from app.models.caller import Caller, Scope
from app.models.dependency import Dependency, DependencyFault, Term, list_candidates, parse_dependency
from app.models.record import TaskRecord
from app.models.task import Task
from app.slurm.client import SlurmClient
from app.store.lease import LeaderLease
from app.store.records import RecordStore

_MAX_POLL_AGE = timedelta(seconds=20)  # less than the shortest MinJobAge of which Slurm keeps ended jobs
_PATH = "task.slurm.dependency"


class DependencyStore(RecordStore, LeaderLease, Protocol):
    """The part of a store that dependencies need."""


class _Status(Enum):
    """Result of judging a term."""

    OPEN = "Slurm decides"
    FULFILLED = "nothing is left to wait for"
    IMPOSSIBLE = "the term can never be fulfilled"


class _JudgedTerm(NamedTuple):
    """Result for a term: the term for Slurm, or the reason why the dependency is impossible."""

    status: _Status
    term: Term | str
    reason: str = ""


class DependencyResolver:
    """Resolver of dependencies on tasks. Thread-safe."""

    def __init__(self, store: DependencyStore, slurm: SlurmClient) -> None:
        """Create a resolver. `slurm`: asked only if the last poll is too old."""
        self._store = store
        self._slurm = slurm

    def resolve(self, caller: Caller, task: Task) -> Task:
        """Return the task with job ids in place of the uuids in its dependency.

        Terms that are fulfilled already are left out. A dependency on job ids alone is not changed.

        Raises:
            InvalidRequest: The dependency cannot be read, names a task that the caller may not read or that
                has no job, or can never be fulfilled.
            SlurmUnavailable: A job has ended, or is forgotten, and its end is not recorded yet.
        """
        text = task.slurm.dependency
        if text is None:
            return task
        try:
            candidates = list_candidates(text)
            if not candidates:
                return task
            records = self._find_records(caller, candidates)
            dependency = parse_dependency(text, records)
        except DependencyFault as fault:
            raise InvalidRequest([f"{_PATH}: {fault}"]) from None
        _require_jobs(dependency, records, task.uuid)
        now = self._store.now()
        current = self._refresh(dependency, records, now)
        resolved = _resolve_parts(dependency, current, now)
        options = task.slurm.model_copy(update={"dependency": resolved})
        return task.model_copy(update={"slurm": options})

    def _find_records(self, caller: Caller, uuids: list[str]) -> dict[str, TaskRecord]:
        found = self._store.find_by_uuids(uuids).items()
        return {
            uuid: record for uuid, record in found if caller.is_allowed(Scope.READ, record.slurm_username)
        }

    def _refresh(
        self, dependency: Dependency, records: Mapping[str, TaskRecord], now: datetime
    ) -> dict[str, TaskRecord]:
        """Return the records, with the present states of open jobs if the last poll is too old to know them.

        Raises:
            SlurmUnavailable: Slurm does not answer, or does not know the job of an open record.
        """
        named = {term.id: records[term.id] for term in dependency.tasks}
        job_ids = {uuid: record.slurm_job_id for uuid, record in named.items() if record.is_open}
        lease = self._store.read_lease() if job_ids else None
        polled_at = lease.report.finished_at if lease else None
        if not job_ids or (polled_at is not None and now - polled_at < _MAX_POLL_AGE):
            return named
        jobs = self._slurm.read_jobs([job_id for job_id in job_ids.values() if job_id is not None])
        for uuid, job_id in job_ids.items():
            record, job = named[uuid], jobs.get(job_id or 0)
            if job is None or not is_same_job(to_open_job(record, job.job_id), job):
                words = f"{_PATH}: the end of task {uuid} is not recorded yet; try again"
                raise SlurmUnavailable(words)
            named[uuid] = record.model_copy(update={"job": job, "slurm_job_state": job.job_state})
        return named


def _require_jobs(dependency: Dependency, records: Mapping[str, TaskRecord], own_uuid: str) -> None:
    """Check that each uuid belongs to another task with a job.

    Raises:
        InvalidRequest: A task is unknown, or has no job; the error lists all of them.
    """
    faults = []
    for term in dependency.tasks:
        record = records.get(term.id)
        if term.id == own_uuid:
            faults.append(f"{_PATH}: a task must not wait for itself")
        elif record is None:
            faults.append(f"{_PATH}: no task {term.id} is recorded here")
        elif record.is_reserved:
            faults.append(f"{_PATH}: it is not known yet whether task {term.id} has a job; try again later")
        elif record.slurm_job_id is None:
            faults.append(f"{_PATH}: task {term.id} has no job: its submission failed")
    if faults:
        raise InvalidRequest(faults)


def _resolve_parts(dependency: Dependency, records: Mapping[str, TaskRecord], now: datetime) -> str | None:
    """Return the dependency with job ids; None if nothing is left to wait for.

    Raises:
        InvalidRequest: The dependency can never be fulfilled.
    """
    judged = [_judge_part(part, records, now) for part in dependency.parts]
    statuses = [one.status for one in judged]
    if dependency.is_any and _Status.FULFILLED in statuses:
        return None
    is_possible = _Status.OPEN in statuses if dependency.is_any else _Status.IMPOSSIBLE not in statuses
    if not is_possible:
        reasons = [one.reason for one in judged if one.status is _Status.IMPOSSIBLE]
        raise InvalidRequest([f"{_PATH}: can never be fulfilled: {reason}" for reason in reasons])
    left = tuple(one.term for one in judged if one.status is _Status.OPEN)
    return Dependency(left, dependency.is_any).render() if left else None


def _judge_part(part: Term | str, records: Mapping[str, TaskRecord], now: datetime) -> _JudgedTerm:
    if not isinstance(part, Term) or not part.is_uuid:
        return _JudgedTerm(_Status.OPEN, part)
    record = records[part.id]
    term = Term(part.kind, str(record.slurm_job_id), is_uuid=False, minutes=part.minutes)
    state = record.slurm_job_state
    if state is None or not state.is_settled:
        return _JudgedTerm(_Status.OPEN, term)
    if part.kind == "after" and part.minutes and _add_to_start(record, part.minutes) > now:
        return _JudgedTerm(_Status.OPEN, term)
    if (reason := _explain_impossible(part, state)) is not None:
        return _JudgedTerm(_Status.IMPOSSIBLE, term, reason)
    return _JudgedTerm(_Status.FULFILLED, term)


def _explain_impossible(term: Term, state: JobState) -> str | None:
    """Return why a term about a job that has ended cannot be fulfilled; None if it is fulfilled."""
    if term.kind == "expand":
        return f"the job of task {term.id} has ended"
    if term.kind not in ("afterok", "afternotok", "aftercorr"):
        return None
    if state is JobState.UNKNOWN:
        return f"it is unknown how task {term.id} ended"
    if state.is_success == (term.kind != "afternotok"):
        return None
    return f"task {term.id} ended as {state}"


def _add_to_start(record: TaskRecord, minutes: int) -> datetime:
    """Return when so many minutes have passed since the job began, or since its submission."""
    start = record.job.start_time if record.job else None
    return (start or record.created_at) + timedelta(minutes=minutes)
