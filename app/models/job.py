"""A job as Slurm reports it, in our own types."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.json_schema import SkipJsonSchema

from app.job_state import JobState
from app.models.array_tasks import list_of_mask, mask_of_indices
from app.models.file_pattern import common_path

# UTC; in JSON ISO 8601 with its offset.
Utc = Annotated[datetime, PlainSerializer(datetime.isoformat, when_used="json")]

_WORST_FIRST = (
    JobState.FAILED,
    JobState.OUT_OF_MEMORY,
    JobState.TIMEOUT,
    JobState.NODE_FAIL,
    JobState.CANCELLED,
)


class SlurmJob(BaseModel):
    """What slurmctld or slurmdbd says of one job; None where it does not say."""

    model_config = ConfigDict(frozen=True)

    job_id: int
    username: str
    job_state: JobState
    reason: str | None = Field(default=None, description="Why it waits or ended so, in Slurm's word.")
    exit_code: int | None = None
    signal: int | None = Field(default=None, description="The signal that ended it.")
    name: str | None = None
    partition: str | None = None
    nodes: str | None = None
    cpus: int | None = None
    memory_mb: int | None = Field(default=None, description="Requested for a node.")
    time_limit_minutes: int | None = None
    submit_time: Utc | None = None
    start_time: Utc | None = None
    end_time: Utc | None = None
    suspended_seconds: float = Field(
        default=0, description="Between start and end, as of the last time that it was suspended."
    )
    max_memory_bytes: int | None = Field(
        default=None, description="Peak of the largest step, as slurmdbd has it."
    )
    cpu_seconds: float | None = Field(default=None, description="As slurmdbd has it.")
    working_directory: str | None = None
    standard_output: str | None = Field(
        default=None, description="The file, or the pattern of an array's files."
    )
    standard_error: str | None = Field(
        default=None, description="The same for standard error; it is the same file if both are joined."
    )
    comment: str | None = None
    restarts: int = Field(default=0, description="How often it was put back into the queue.")
    array_job_id: int | None = None
    array_tasks: dict[JobState, int] | None = Field(
        default=None, description="How many tasks of an array are in which state."
    )
    failed_tasks: str | None = Field(
        default=None, description='The indices of an array\'s tasks that did not succeed, such as "2,7-9".'
    )
    # The index of one task of an array, or a mask of all tasks that have no job id yet: bit n for task n.
    task_index: SkipJsonSchema[int | None] = Field(default=None, exclude=True, repr=False)
    task_mask: SkipJsonSchema[int] = Field(default=0, exclude=True, repr=False)

    @property
    def has_failed(self) -> bool:
        """Return whether the job ended without success."""
        return self.job_state.is_final and not self.job_state.is_success

    @property
    def never_ran(self) -> bool:
        """Return whether the job ended before it began."""
        return self.job_state.is_final and self.start_time is None

    def run_seconds(self) -> float | None:
        """Return how long an ended job ran, without the time for which it was suspended."""
        return None if self.end_time is None else self.run_seconds_until(self.end_time)

    def run_seconds_until(self, moment: datetime) -> float | None:
        """Return how long a job had run at `moment`; None where its start is not known."""
        if self.start_time is None:
            return None
        return max(0.0, (moment - self.start_time).total_seconds() - self.suspended_seconds)


def one_job(job_id: int, parts: Sequence[SlurmJob]) -> SlurmJob:
    """Return the job `job_id`, merged from its array tasks where it is an array.

    An array has ended when all its tasks have, has succeeded if all have, and runs while any runs.
    """
    lead = next((part for part in parts if part.job_id == job_id), parts[0])
    if lead.array_job_id != job_id:
        return lead
    counts, failed = _count_tasks(parts)
    state = _array_state(list(counts))
    decisive = next((part for part in parts if part.job_state is state), lead)
    starts = [part.start_time for part in parts if part.start_time is not None]
    ends = [part.end_time for part in parts if part.end_time is not None]
    return lead.model_copy(
        update={
            "job_id": job_id,
            "job_state": state,
            "exit_code": decisive.exit_code,
            "signal": decisive.signal,
            "reason": decisive.reason,
            "start_time": min(starts, default=None),
            "end_time": max(ends, default=None) if state.is_final else None,
            "restarts": sum(part.restarts for part in parts),
            "array_tasks": counts,
            "failed_tasks": list_of_mask(failed) or None,
            "suspended_seconds": min(
                (part.suspended_seconds for part in parts if part.start_time), default=0
            ),
            "standard_output": common_path([path for part in parts if (path := part.standard_output)]),
            "standard_error": common_path([path for part in parts if (path := part.standard_error)]),
            "nodes": lead.nodes or next((part.nodes for part in parts if part.nodes), None),
            "max_memory_bytes": max((part.max_memory_bytes or 0 for part in parts), default=0) or None,
            "cpu_seconds": sum(part.cpu_seconds or 0 for part in parts) or None,
        }
    )


def _count_tasks(parts: Sequence[SlurmJob]) -> tuple[dict[JobState, int], int]:
    """Return how many tasks are in which state, and the mask of those that ended without success.

    Each task that has a job id of its own is a part, and all others together are one. slurmdbd of 22.05 names
    a task in both, so that the part with fewer tasks counts. A part without indices counts as one task.
    """
    counts = Counter(part.job_state for part in parts if not part.task_mask)
    own = {part.task_index for part in parts if part.task_index is not None}
    failed = mask_of_indices(
        part.task_index for part in parts if part.task_index is not None and part.has_failed
    )
    waiting = ~mask_of_indices(own)
    for part in parts:
        mask = part.task_mask & waiting
        if mask:
            counts[part.job_state] += mask.bit_count()
            failed |= mask if part.has_failed else 0
    return dict(counts), failed


def _array_state(states: Sequence[JobState]) -> JobState:
    active = [state for state in states if not state.is_final]
    if active:
        started = [state for state in active if not state.is_waiting]
        return (started or sorted(active, key=lambda state: state is not JobState.PENDING))[0]
    failed = [state for state in states if not state.is_success]
    for state in (*_WORST_FIRST, *failed):
        if state in failed:
            return state
    return JobState.COMPLETED
