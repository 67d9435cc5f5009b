"""The leader's report to all processes, in the store: its last polls, and its knowledge of Slurm."""

from pydantic import BaseModel, ConfigDict

from app.models.job import Utc


class LeaderReport(BaseModel):
    """The report beside the lease. A field is None until a leader has set it.

    Attributes:
        finished_at: When the last polling cycle that succeeded ended.
        polled_at: When the last complete poll began.
        uncovered: The ids of the jobs whose records may have been behind after that poll.
        seconds: How long that cycle took.
        pause_seconds: How long the leader waits until the next cycle.
        fault: Why a later cycle failed.
        slurm_checked_at: When the leader last asked slurmctld and slurmdbd whether they answer.
        slurm_fault: Why slurmctld cannot be used.
        key_fault: Why Slurm does not accept the key of this service.
        accounting_fault: Why slurmdbd cannot be used.
        has_accounting: Whether the cluster has a slurmdbd; None if that is not known.
    """

    model_config = ConfigDict(frozen=True)

    finished_at: Utc | None = None
    polled_at: Utc | None = None
    uncovered: tuple[int, ...] = ()
    seconds: float | None = None
    pause_seconds: float | None = None
    fault: str | None = None
    slurm_checked_at: Utc | None = None
    slurm_fault: str | None = None
    key_fault: str | None = None
    accounting_fault: str | None = None
    has_accounting: bool | None = None
