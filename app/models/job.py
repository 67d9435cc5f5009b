"""A job as Slurm reports it, in our own types."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

from app.job_state import JobState

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
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    name: str | None = None
    partition: str | None = None
    nodes: str | None = None
    cpus: int | None = None
    memory_mb: int | None = None  # requested for a node
    time_limit_minutes: int | None = None
    submit_time: Utc | None = None
    start_time: Utc | None = None
    end_time: Utc | None = None
    max_memory_bytes: int | None = None  # peak of the largest step; from slurmdbd only
    cpu_seconds: float | None = None  # from slurmdbd only
    working_directory: str | None = None
    standard_output: str | None = None
    comment: str | None = None
    restarts: int = 0
    array_job_id: int | None = None
    array_tasks: dict[JobState, int] | None = None  # how many tasks of an array are in which state

    def run_seconds(self) -> float | None:
        if self.start_time is None or self.end_time is None:
            return None
        return max(0.0, (self.end_time - self.start_time).total_seconds())


def one_job(job_id: int, parts: Sequence[SlurmJob]) -> SlurmJob:
    """The job `job_id`, made of its array tasks where it is an array.

    An array has ended when all its tasks have, is a success if all are, and runs while any runs.
    """
    lead = next((part for part in parts if part.job_id == job_id), parts[0])
    if lead.array_job_id != job_id:
        return lead
    counts: dict[JobState, int] = {}
    for part in parts:
        counts[part.job_state] = counts.get(part.job_state, 0) + 1
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
            "array_tasks": counts,
            "nodes": lead.nodes or next((part.nodes for part in parts if part.nodes), None),
            "max_memory_bytes": max((part.max_memory_bytes or 0 for part in parts), default=0) or None,
            "cpu_seconds": sum(part.cpu_seconds or 0 for part in parts) or None,
        }
    )


def _array_state(states: Sequence[JobState]) -> JobState:
    active = [state for state in states if not state.is_final]
    if active:
        started = [state for state in active if state is not JobState.PENDING]
        return started[0] if started else JobState.PENDING
    failed = [state for state in states if not state.is_success]
    for state in (*_WORST_FIRST, *failed):
        if state in failed:
            return state
    return JobState.COMPLETED
