"""Slurm's job states, with their properties, and a parser for every form in which Slurm writes them."""

from collections.abc import Sequence
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job: one of Slurm's state names, or UNKNOWN for a job that Slurm no longer knows."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"

    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    DEADLINE = "DEADLINE"
    FAILED = "FAILED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PREEMPTED = "PREEMPTED"
    REVOKED = "REVOKED"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    TIMEOUT = "TIMEOUT"

    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    SIGNALING = "SIGNALING"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"

    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Return whether the job has ended, as Slurm reports."""
        return self in _FINAL

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is left to wait for: the job has ended, or Slurm has forgotten it."""
        return self in _FINAL or self is JobState.UNKNOWN

    @property
    def is_waiting(self) -> bool:
        """Return whether the job is in the queue; the start and end that Slurm reports are predictions."""
        return self in _WAITING

    @property
    def has_begun(self) -> bool:
        """Return whether the job has started to run: it waits neither in the queue nor for its nodes."""
        return not self.is_waiting and self is not JobState.CONFIGURING

    @property
    def is_success(self) -> bool:
        """Return whether the job ended with success."""
        return self is JobState.COMPLETED

    @classmethod
    def read(cls, written: str | Sequence[str]) -> "JobState":
        """Return the state that slurmrestd wrote: one word (up to v0.0.38), or a base state with flags.

        A flag that means "not over yet" hides the base state, as squeue shows it. A state is never guessed.

        Raises:
            ValueError: None of the words is a state of Slurm.
        """
        words = [written] if isinstance(written, str) else list(written)
        known = [cls(word) for word in words if word in cls.__members__]
        for choice in (_TRANSITIONS, _OVERRIDING, _ALL):
            for state in known:
                if state in choice:
                    return state
        raise ValueError(f"not a Slurm job state: {written!r}")


_ALL = frozenset(JobState)
_FINAL = frozenset(
    {
        JobState.BOOT_FAIL,
        JobState.CANCELLED,
        JobState.COMPLETED,
        JobState.DEADLINE,
        JobState.FAILED,
        JobState.LAUNCH_FAILED,
        JobState.NODE_FAIL,
        JobState.OUT_OF_MEMORY,
        JobState.PREEMPTED,
        JobState.REVOKED,
        JobState.TIMEOUT,
    }
)
_TRANSITIONS = frozenset(
    {
        JobState.COMPLETING,
        JobState.CONFIGURING,
        JobState.REQUEUED,
        JobState.REQUEUE_FED,
        JobState.REQUEUE_HOLD,
        JobState.RESIZING,
        JobState.RESV_DEL_HOLD,
        JobState.SIGNALING,
        JobState.STAGE_OUT,
        JobState.STOPPED,
    }
)
_OVERRIDING = frozenset({JobState.REVOKED, JobState.SPECIAL_EXIT})
# SPECIAL_EXIT is a requeued job that is held until its user releases it (seen on 22.05, 24.11, 26.05).
_WAITING = frozenset(
    {
        JobState.PENDING,
        JobState.REQUEUED,
        JobState.REQUEUE_FED,
        JobState.REQUEUE_HOLD,
        JobState.RESV_DEL_HOLD,
        JobState.SPECIAL_EXIT,
    }
)
