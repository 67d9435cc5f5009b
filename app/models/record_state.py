"""The state of a record, which a waiting request reads, and the conditions that it may wait for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from app.job_state import JobState
from app.models.record import TaskRecord
from app.models.task_summary import TaskSummary

MAX_WAIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RecordState:
    """The fields of a record that tell its user, and whether its job waits, runs or has ended."""

    slurm_username: str
    slurm_job_id: int | None
    slurm_job_state: JobState | None
    is_reserved: bool  # the job is not known yet

    @classmethod
    def of(cls, record: TaskRecord | TaskSummary) -> Self:
        """Return the state of a record, or of the record that a summary is about."""
        job_id, state = record.slurm_job_id, record.slurm_job_state
        is_reserved = job_id is None and state is None and record.submission_error is None
        return cls(record.slurm_username, job_id, state, is_reserved)

    @property
    def has_ended(self) -> bool:
        """Return whether the task has ended: its job has a final state, or its submission has failed."""
        return not self.is_reserved and (self.slurm_job_state is None or self.slurm_job_state.is_settled)

    @property
    def has_begun(self) -> bool:
        """Return whether the job has started to run, or the task has ended."""
        is_running = self.slurm_job_state is not None and self.slurm_job_state.has_begun
        return is_running or self.has_ended


def states_of(*records: TaskRecord | TaskSummary) -> dict[str, RecordState]:
    """Return the states of records, by their keys in the store; a summary has only the uuid."""
    return {_get_store_key(record): RecordState.of(record) for record in records}


def _get_store_key(record: TaskRecord | TaskSummary) -> str:
    return (record.key if isinstance(record, TaskRecord) else None) or record.uuid


class WaitCondition(StrEnum):
    """Condition that a request waits for."""

    END = "end"
    BEGIN = "begin"
    CHANGE = "change"

    def is_met(self, known: Mapping[str, RecordState], present: Mapping[str, RecordState]) -> bool:
        """Return whether the wait is over.

        Args:
            known: The states at the beginning of the request, by the key of the record in the store.
            present: The states now. A record that no longer exists ends the wait.
        """
        if any(key not in present for key in known):
            return True
        if self is WaitCondition.CHANGE:
            return not known or any(present[key] != state for key, state in known.items())
        if self is WaitCondition.BEGIN:
            return all(present[key].has_begun for key in known)
        return all(present[key].has_ended for key in known)


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait: the condition, and the longest time in seconds."""

    seconds: float
    until: WaitCondition = WaitCondition.END
