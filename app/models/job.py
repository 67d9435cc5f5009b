"""A job as Slurm reports it, in the types of this service."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.json_schema import SkipJsonSchema

from app.job_state import JobState

# UTC; in JSON ISO 8601 with its offset.
Utc = Annotated[datetime, PlainSerializer(datetime.isoformat, when_used="json")]


class SlurmJob(BaseModel):
    """A job as slurmctld or slurmdbd reports it; a fact that was not reported is None."""

    model_config = ConfigDict(frozen=True)

    job_id: int
    username: str
    job_state: JobState
    reason: str | None = Field(
        default=None, description="Why the job waits or ended as it did, in Slurm's own word."
    )
    exit_code: int | None = None
    signal: int | None = Field(default=None, description="The signal that ended the job.")
    name: str | None = None
    partition: str | None = None
    nodes: str | None = None
    cpus: int | None = None
    memory_mb: int | None = Field(default=None, description="The memory requested on each node.")
    time_limit_minutes: int | None = None
    submit_time: Utc | None = None
    start_time: Utc | None = None
    end_time: Utc | None = None
    suspended_seconds: float = Field(
        default=0, description="How long the job was suspended, as of the end of its last suspension."
    )
    max_memory_bytes: int | None = Field(
        default=None, description="The peak memory of the largest step, from slurmdbd."
    )
    cpu_seconds: float | None = Field(default=None, description="CPU time, from slurmdbd.")
    working_directory: str | None = None
    standard_output: str | None = Field(
        default=None,
        description="The file of standard output; for an array, the pattern of its files, or their common"
        " folder if the job was submitted elsewhere.",
    )
    standard_error: str | None = Field(
        default=None,
        description="The file of standard error; the same as `standard_output` if both are joined.",
    )
    comment: str | None = None
    restarts: int = Field(default=0, description="How often the job was requeued.")
    array_job_id: int | None = None
    array_tasks: dict[JobState, int] | None = Field(
        default=None, description="The number of an array's tasks in each state."
    )
    failed_tasks: str | None = Field(
        default=None, description='The indices of an array\'s tasks that did not succeed, such as "2,7-9".'
    )
    # The index of one task of an array, or a mask of all tasks that have no job id yet: bit n for task n.
    task_index: SkipJsonSchema[int | None] = Field(default=None, exclude=True, repr=False)
    task_mask: SkipJsonSchema[int] = Field(default=0, exclude=True, repr=False)
    # How many tasks of an array wait until they are released, and how many wait again after a requeue.
    # For a job that is no array both are 0 or 1.
    held_tasks: SkipJsonSchema[int] = Field(default=0, exclude=True, repr=False)
    requeued_tasks: SkipJsonSchema[int] = Field(default=0, exclude=True, repr=False)

    @property
    def array_task_count(self) -> int:
        """Return how many tasks of an array the job stands for; 0 for a job that is no array."""
        return sum((self.array_tasks or {}).values())

    @property
    def waiting_task_count(self) -> int:
        """Return how many tasks of an array wait; 0 or 1 for a job that is no array."""
        counts = self.array_tasks or {self.job_state: 1}
        return sum(count for state, count in counts.items() if state.is_waiting)

    @property
    def is_ending(self) -> bool:
        """Return whether every part of the job has ended, or is about to."""
        states = self.array_tasks or {self.job_state}
        return all(state.is_final or state is JobState.COMPLETING for state in states)

    @property
    def has_failed(self) -> bool:
        """Return whether the job ended without success."""
        return self.job_state.is_final and not self.job_state.is_success

    @property
    def never_ran(self) -> bool:
        """Return whether the job ended before it began."""
        return self.job_state.is_final and self.start_time is None

    def elapsed_seconds(self) -> float | None:
        """Return how long an ended job ran, without the time for which it was suspended."""
        return None if self.end_time is None else self.elapsed_seconds_until(self.end_time)

    def elapsed_seconds_until(self, moment: datetime) -> float | None:
        """Return how long a job had run at `moment`; None if its start is not known."""
        if self.start_time is None:
            return None
        return max(0.0, (moment - self.start_time).total_seconds() - self.suspended_seconds)
