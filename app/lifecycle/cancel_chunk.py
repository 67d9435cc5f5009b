"""Cancel a few jobs of one user with as few requests to Slurm as its release allows."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from app.errors import NotSupported, SlurmMisbehaved, SlurmProxyError, SlurmRefused, SlurmUnavailable
from app.lifecycle.job_actions import Target
from app.models.bulk_cancellation import CancelledTask, CancelOutcome
from app.models.job import SlurmJob
from app.models.record import TaskRecord
from app.slurm.client import SlurmClient
from app.slurm.job_control import JobOutcome

_CANCEL_SECONDS = 10.0  # that slurmrestd has to cancel a chunk
_NOT_KNOWN_YET = "the job of the task is not known yet; repeat the request in a minute"


@dataclass(slots=True)
class Chunk:
    """The tasks of one user, and the result for each.

    Attributes:
        records: The records, by their index in the answer.
        results: The results of the tasks that were tried, by the same index.
        slurm_is_away: Whether Slurm did not answer, so that no further chunk makes sense.
    """

    records: dict[int, TaskRecord]
    results: dict[int, CancelledTask] = field(default_factory=dict)
    slurm_is_away: bool = False

    def set_result(self, index: int, outcome: CancelOutcome, error: str | None = None) -> None:
        """Set the result of a task."""
        self.results[index] = describe_outcome(self.records[index], outcome, error)

    def fail_rest(self, outcome: CancelOutcome, error: SlurmProxyError) -> None:
        """Set one result for all tasks that have none yet."""
        self.slurm_is_away = isinstance(error, SlurmUnavailable | SlurmMisbehaved)
        for index in self.records.keys() - self.results.keys():
            self.set_result(index, outcome, error.for_callers)


def describe_outcome(record: TaskRecord, outcome: CancelOutcome, error: str | None = None) -> CancelledTask:
    """Return the part of the answer about one task."""
    return CancelledTask(
        uuid=record.uuid,
        slurm_job_id=record.slurm_job_id,
        slurm_username=record.slurm_username,
        outcome=outcome,
        error=error,
    )


class ChunkCancellation:
    """Cancels chunks of jobs."""

    def __init__(self, slurm: SlurmClient, refused_users: Collection[str]) -> None:
        """Set up; `refused_users`: users whose jobs are never changed."""
        self._slurm = slurm
        self._refused_users = refused_users

    def cancel(self, chunk: Chunk, is_over: Callable[[], bool]) -> None:
        """Cancel the jobs of a chunk, and set the result of each.

        Args:
            chunk: The tasks.
            is_over: Whether the time for the request is over; the tasks that are left have no result then.
        """
        active = self._read_jobs(chunk)
        if not active:
            return
        (username,) = {chunk.records[index].slurm_username for index in active}
        try:
            outcomes = self._cancel_together([job.job_id for job in active.values()], username)
        except NotSupported:
            self._cancel_singly(chunk, active, username, is_over)
        except SlurmProxyError as error:
            chunk.fail_rest(CancelOutcome.FAILED, error)
        else:
            for index, job in active.items():
                _set_slurm_result(chunk, index, job, outcomes[job.job_id])

    def _cancel_together(self, job_ids: Sequence[int], username: str) -> dict[int, JobOutcome | SlurmRefused]:
        unique = list(dict.fromkeys(job_ids))
        return self._slurm.control.cancel_many(unique, username, _CANCEL_SECONDS)

    def _cancel_singly(
        self, chunk: Chunk, active: dict[int, SlurmJob], username: str, is_over: Callable[[], bool]
    ) -> None:
        """Cancel one job after the other, until Slurm does not answer or the time is over."""
        for index, job in active.items():
            if is_over():
                return
            try:
                _set_slurm_result(chunk, index, job, self._slurm.control.cancel(job.job_id, username))
            except SlurmRefused as error:
                _set_slurm_result(chunk, index, job, error)
            except SlurmProxyError as error:
                chunk.set_result(index, CancelOutcome.FAILED, error.for_callers)
                chunk.slurm_is_away = True
                return

    def _read_jobs(self, chunk: Chunk) -> dict[int, SlurmJob]:
        """Return the jobs that may be cancelled, by their index, and set the result of all others."""
        targets = {}
        for index, record in chunk.records.items():
            if record.slurm_username in self._refused_users:
                words = f"this server does not act as {record.slurm_username}"
                chunk.set_result(index, CancelOutcome.FAILED, words)
            elif record.slurm_job_id is None:
                chunk.set_result(index, CancelOutcome.FAILED, _NOT_KNOWN_YET)
            else:
                targets[index] = Target(record, record.slurm_job_id, "", f"job {record.slurm_job_id}")
        try:
            found = self._slurm.read_jobs([each.job_id for each in targets.values()]) if targets else {}
        except SlurmProxyError as error:
            chunk.fail_rest(CancelOutcome.NOT_TRIED, error)
            return {}
        jobs = {}
        for index, target in targets.items():
            job = found.get(target.job_id)
            if target.job_id not in found:
                words = f"slurmctld's answer about {target.noun} is missing or cannot be read"
                chunk.set_result(index, CancelOutcome.NOT_TRIED, words)
            elif job is None or not target.owns(job):
                words = f"Slurm no longer knows {target.noun}"
                chunk.set_result(index, CancelOutcome.ALREADY_OVER, words)
            elif job.job_state.is_final:
                chunk.set_result(index, CancelOutcome.ALREADY_OVER)
            else:
                jobs[index] = job
        return jobs


def _set_slurm_result(chunk: Chunk, index: int, job: SlurmJob, outcome: JobOutcome | SlurmRefused) -> None:
    if isinstance(outcome, SlurmRefused):
        chunk.set_result(index, CancelOutcome.FAILED, outcome.for_callers)
    elif outcome is JobOutcome.DONE or (outcome is JobOutcome.UNREPORTED and not job.is_ending):
        chunk.set_result(index, CancelOutcome.CANCELLED)
    else:
        chunk.set_result(index, CancelOutcome.ALREADY_OVER)
