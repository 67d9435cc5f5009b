"""A cluster that only exists in memory, and records its requests."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from app.constants import Settings
from app.errors import NotSupported, SlurmProxyError, SlurmRefused, SlurmTokenRefused
from app.job_state import JobState
from app.models.cluster_answers import Partition
from app.models.job import SlurmJob
from app.models.record import JOB_TAG
from app.models.task import Task
from app.senders import Message, Sender
from app.slurm.accounting import AccountingState
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.health_check import SlurmHealth
from app.slurm.job_control import JobOutcome
from app.slurm.job_search import Search
from app.slurm.reply import Reply
from app.slurm.submission import build_submission
from app.slurm.tagged_jobs import TaggedJobs


def make_partition(**fields: Any) -> Partition:
    base: dict[str, Any] = dict.fromkeys(Partition.model_fields)
    base |= {"name": "debug", "state": "UP", "default": True, "max_time_minutes": 60}
    base |= {"total_nodes": 2, "available_nodes": 2, "total_cpus": 8, "free_cpus": 8}
    return Partition.model_validate({**base, **fields})


class FakeSlurm:
    """Has the methods of SlurmClient; a test moves its jobs on by hand."""

    max_call_seconds = 36.0

    def __init__(self) -> None:
        self.api = SUPPORTED_API_VERSIONS[0]
        self.has_accounting = True
        self.jobs: dict[int, SlurmJob] = {}  # what slurmctld knows
        self.ended: dict[int, SlurmJob] = {}  # what slurmdbd knows
        self.accounts_at_once = True  # slurmdbd hears of an end in the same moment
        self.submitted: list[tuple[Task, str, str]] = []
        self.calls: list[str] = []
        self.failure: SlurmProxyError | None = None  # raised by the next submit
        self.keeps_job = False  # whether that submit made a job all the same
        self.on_submit: Callable[[int], object] = lambda _: None  # what the site does with a new job
        self.known_down: SlurmProxyError | None = None  # the circuit breaker is open
        self.down: SlurmProxyError | None = None  # raised by everything else
        self.accounting_is_behind = False  # it has not heard yet of what slurmctld has forgotten
        self.accounting_down: SlurmProxyError | None = None
        self.polled_ids: set[int] = set()  # the ids of the last poll
        self.busy_seconds = 0.0
        self.seconds_per_call = 0.0
        self.unread_jobs: frozenset[int] = frozenset()  # which a poll leaves for a later one
        self.search_is_complete = True
        self.search_complete_until: datetime | None = None
        self.proven_until: list[datetime | None] = []  # what the searches had to prove
        self.token_fault: str | None = None
        self.partitions = [make_partition()]
        self.raw_reply: Reply | None = None  # slurmrestd's own answer to an operator
        self.uncancellable: set[int] = set()
        self._next_id = 1000
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)  # slurmctld's

    def read_controller_time(self, expires: datetime | None = None) -> datetime:
        if self.known_down is not None:
            raise self.known_down
        return self.clock().replace(microsecond=0)

    @property
    def outage(self) -> str | None:
        return str(self.known_down) if self.known_down else None

    def check_health(self) -> SlurmHealth:
        fault = self.known_down or self.down
        if isinstance(fault, SlurmTokenRefused):
            self.token_fault = str(fault)
            return SlurmHealth(key_fault=str(fault))
        self.token_fault = None
        if fault is not None:
            return SlurmHealth(str(fault))
        if self.has_accounting and self.accounting_down is not None:
            return SlurmHealth(accounting_fault=str(self.accounting_down), has_accounting=True)
        return SlurmHealth(has_accounting=self.has_accounting)

    def read_partitions(self) -> list[Partition]:
        self._ask("read_partitions")
        return self.partitions

    def require_up(self) -> None:
        if self.known_down is not None:
            raise self.known_down

    def discover_dialect(self) -> None:
        self.require_up()

    def submit(self, task: Task, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
        self.calls.append("submit")
        self.submitted.append((task, command, tag))
        failure, self.failure = self.failure, None
        if failure is None or self.keeps_job:
            self._next_id += 1
            self.put(
                self._next_id,
                username=task.username,
                comment=tag,
                name=task.slurm.job_name or task.name,
                working_directory=task.cwd,
            )
            self.on_submit(self._next_id)
        if failure is not None:
            raise failure
        return self._next_id, []

    def build_submission(self, task: Task, command: str, tag: str) -> dict[str, Any]:
        return build_submission(task, command, tag, Dialect(self.api), "hours")

    @property
    def control(self) -> Self:
        """As SlurmClient has its JobControl."""
        return self

    def offers_requeue(self) -> bool:
        return Dialect(self.api).has_requeue

    def cancel(self, job_id: int, username: str) -> JobOutcome:
        if (refused := self._change("cancel", job_id, active=True)) is not None:
            return refused
        if job_id in self.uncancellable:
            raise SlurmRefused(f"Slurm does not cancel job {job_id}: Access/permission denied")
        self.put(job_id, JobState.CANCELLED)
        return JobOutcome.DONE if Dialect(self.api).reports_ended_jobs else JobOutcome.UNREPORTED

    def cancel_many(
        self, job_ids: Sequence[int], username: str, timeout: float | None = None
    ) -> dict[int, JobOutcome | SlurmRefused]:
        if not Dialect(self.api).has_bulk_cancellation:
            raise NotSupported("one after the other")
        self._ask("cancel_many")
        return {job_id: self._cancel_one(job_id) for job_id in job_ids}

    def _cancel_one(self, job_id: int) -> JobOutcome | SlurmRefused:
        if job_id in self.uncancellable:
            return SlurmRefused(f"Slurm does not cancel job {job_id}: Access/permission denied")
        if job_id not in self.jobs:
            return JobOutcome.UNKNOWN_JOB
        if self.jobs[job_id].job_state.is_final:
            return JobOutcome.ENDED
        self.put(job_id, JobState.CANCELLED)
        return JobOutcome.DONE

    def hold(self, job_id: int, username: str) -> JobOutcome:
        if (refused := self._change("hold", job_id, active=True)) is not None:
            return refused
        job = self.jobs[job_id]
        self.put(job_id, job.job_state, held_tasks=job.waiting_task_count, reason="JobHeldUser")
        return JobOutcome.DONE

    def release(self, job_id: int, username: str) -> JobOutcome:
        if (refused := self._change("release", job_id, active=True)) is not None:
            return refused
        if self.jobs[job_id].reason == "JobHeldAdmin":
            return JobOutcome.DENIED
        self.put(job_id, self.jobs[job_id].job_state, held_tasks=0, reason=None)
        return JobOutcome.DONE

    def requeue(self, job_id: int, username: str) -> JobOutcome:
        if (refused := self._change("requeue", job_id, active=False)) is not None:
            return refused
        job = self.jobs[job_id]
        if job.job_state.is_waiting:
            return JobOutcome.PENDING
        again = {"restarts": job.restarts + 1, "requeued_tasks": 1, "start_time": None, "end_time": None}
        self.put(job_id, JobState.PENDING, submit_time=datetime.now(UTC).replace(microsecond=0), **again)
        return JobOutcome.DONE

    def _change(self, name: str, job_id: int, *, active: bool) -> JobOutcome | None:
        """Return why nothing is done, if so; `active`: the job must not have ended."""
        self._ask(name)
        if job_id not in self.jobs:
            return JobOutcome.UNKNOWN_JOB
        return JobOutcome.ENDED if active and self.jobs[job_id].job_state.is_final else None

    def put(self, job_id: int, state: JobState = JobState.PENDING, **fields: Any) -> SlurmJob:
        """Makes a job, or moves one on."""
        now = datetime.now(UTC).replace(microsecond=0)
        before = self.jobs.get(job_id)
        base = dict(before) if before else {"submit_time": now, "username": "alice"}
        job = SlurmJob.model_validate({**base, "job_id": job_id, "job_state": state, **fields})
        self.jobs[job_id] = job
        if state.is_final and self.accounts_at_once:
            self.ended[job_id] = job.model_copy(update={"comment": None})
        return job

    def forget(self, job_id: int, *, accounted: bool = True) -> None:
        """slurmctld purges the job; slurmdbd keeps it, without the comment."""
        job = self.jobs.pop(job_id)
        if accounted:
            self.ended[job_id] = job.model_copy(update={"comment": None})
        else:
            self.ended.pop(job_id, None)

    def poll(
        self, known: Mapping[int, JobState], ended_arrays: Collection[int] = ()
    ) -> dict[int, SlurmJob | None]:
        self._ask("poll")
        self.polled_ids = set(known)
        found = {job_id: self.jobs.get(job_id) for job_id in known if job_id not in self.unread_jobs}
        return {
            job_id: job
            for job_id, job in found.items()
            if job is None
            or (
                job.job_state is not known[job_id] and not (known[job_id].is_final and job.job_state.is_final)
            )
        }

    def read_jobs(self, job_ids: Collection[int]) -> dict[int, SlurmJob | None]:
        self._ask("read_jobs")
        return {job_id: self.jobs.get(job_id) for job_id in job_ids}

    def read_job(self, job_id: int) -> SlurmJob | None:
        self._ask("read_job")
        return self.jobs.get(job_id)

    def read_accounting(
        self,
        job_ids: Collection[int],
        timeout: float | None = None,
        not_before: Mapping[int, datetime] | None = None,
    ) -> dict[int, SlurmJob] | None:
        self._ask("read_accounting")
        if not self.has_accounting:
            return None
        if self.accounting_down is not None:
            raise self.accounting_down
        return {job_id: self.ended[job_id] for job_id in job_ids if job_id in self.ended}

    def find_job(self, job_id: int) -> SlurmJob | None:
        self._ask("find_job")
        return self.jobs.get(job_id) or self.ended.get(job_id)

    def offers_states(self) -> bool:
        return Dialect(self.api).has_state_list

    def read_states(self, job_ids: Collection[int]) -> dict[int, JobState | None] | None:
        self._ask("read_states")
        found = {job_id: self.jobs.get(job_id) for job_id in job_ids}
        return {
            job_id: None if job is None or job.array_tasks else job.job_state for job_id, job in found.items()
        }

    def search(
        self,
        usernames: Collection[str],
        since: datetime,
        tags: Collection[str],
        timeout: float | None = None,
        until: datetime | None = None,
    ) -> Search:
        self._ask("search")
        self.proven_until.append(until)
        users = set(usernames)
        here = [job for job in self.jobs.values() if job.username in users]
        untagged = [job for job in here if not (job.comment or "").startswith(JOB_TAG)]
        found = partial(
            Search,
            here,
            untagged,
            set(self.jobs),
            self.search_is_complete,
            complete_until=self.search_complete_until,
        )
        if not self.has_accounting:
            return found([], AccountingState.NONE)
        if self.accounting_down is not None:
            return found([], AccountingState.AWAY)
        known = [] if self.accounting_is_behind else self.ended.values()
        state = AccountingState.BEHIND if self.accounting_is_behind else AccountingState.CURRENT
        return found([job for job in known if job.username in users], state)

    def find_tagged_jobs(self, since: datetime, progress: object) -> TaggedJobs:
        self._ask("find_tagged_jobs")
        ended = [job for job_id, job in self.ended.items() if job_id not in self.jobs]
        jobs = [job for job in (*self.jobs.values(), *ended) if (job.comment or "").startswith(JOB_TAG)]
        faults = [f"slurmdbd was not searched: {self.accounting_down}"] if self.accounting_down else []
        return TaggedJobs(jobs, 0, faults, sum(job.comment is None for job in ended))

    def read_recent_jobs(self, since: datetime, timeout: float | None = None) -> list[SlurmJob]:
        self._ask("read_recent_jobs")
        return list(self.jobs.values())

    def send_raw(self, method: str, path: str, *, user: str = "", json: object = None) -> Reply:
        self._ask("send_raw")
        return self.raw_reply or Reply(200, {"asked": f"{method} {path}", "user": user}, "")

    def send_raw_list(self, update_time: int) -> Reply:
        return self.send_raw("GET", "jobs")

    def close(self) -> None:
        pass

    def _ask(self, name: str) -> None:
        self.busy_seconds += self.seconds_per_call
        self.calls.append(name)
        if self.down is not None:
            raise self.down


class AnyParams(BaseModel):
    model_config = ConfigDict(extra="allow")


class RecordingSender(Sender):
    """A channel that accepts every message, or fails on demand."""

    Params = AnyParams

    def __init__(self, *, rate_limited: bool = False) -> None:
        self.rate_limited = rate_limited  # type: ignore[misc]
        self.messages: list[Any] = []
        self.failures: list[BaseException] = []  # raised one after the other, before messages are taken

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls()

    @staticmethod
    def address(params: Mapping[str, Any]) -> str:
        return str(params.get("recipient", ""))

    @staticmethod
    def own_text(params: Mapping[str, Any]) -> str:
        return str(params.get("body", ""))

    def send(self, message: Message, params: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)
