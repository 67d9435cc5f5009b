"""The answer of `GET /readyz` (`Readiness`); that of `GET /healthz` is in `answers.py`.

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from enum import StrEnum

from pydantic import BaseModel, Field

from app.models.job import Utc


class PartStatus(StrEnum):
    """Health of a part; `unknown` if the check could not determine it."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"
    UNKNOWN = "unknown"


class Part(BaseModel):
    """A part of the service, and its health."""

    status: PartStatus
    reason: str | None = Field(
        default=None, description="Why the part is not ready; null for a part that is."
    )


class StorePart(Part):
    """The database, as a small write a moment ago showed it."""

    write_seconds: float | None = Field(default=None, description="How long the write took.")


class LeaderPart(Part):
    """The process that polls Slurm, one of all processes."""

    process: str | None = Field(
        default=None, description="The name of the process, which begins with its host."
    )
    lease_until: Utc | None = Field(
        default=None, description="When the lease ends, unless the process renews it."
    )


class PollPart(Part):
    """The polls of the leader."""

    finished_at: Utc | None = Field(default=None, description="When the last successful poll ended.")
    age_seconds: float | None = Field(default=None, description="How long ago it ended.")
    duration_seconds: float | None = Field(default=None, description="How long that poll took.")


class SlurmPart(Part):
    """slurmctld, as the leader's checks and the requests of callers show it."""

    checked_at: Utc | None = Field(default=None, description="When the leader last asked Slurm.")


class AccountingPart(Part):
    """slurmdbd, as the leader's checks show it."""

    present: bool | None = Field(
        default=None, description="Whether the cluster has a slurmdbd; null if unknown."
    )


class ReservationsPart(Part):
    """The reservations: tasks for which no job is known yet."""

    open: int | None = None
    oldest_seconds: float | None = Field(default=None, description="The age of the oldest reservation.")


class NotificationsPart(Part):
    """The messages that are due now."""

    due: int | None = None
    oldest_seconds: float | None = Field(default=None, description="How long the oldest one has been due.")


class DeadLettersPart(Part):
    """The messages that were given up: see `GET /notifications`."""

    dead: int | None = None
    newest_seconds: float | None = Field(default=None, description="The age of the newest dead letter.")


class Parts(BaseModel):
    """All parts of the service."""

    store: StorePart
    leader: LeaderPart
    poll: PollPart
    slurm: SlurmPart
    key: Part = Field(description="The key with which this service makes tokens for Slurm.")
    accounting: AccountingPart
    reservations: ReservationsPart
    notifications: NotificationsPart
    dead_letters: DeadLettersPart

    def items(self) -> list[tuple[str, Part]]:
        """Return the parts by name."""
        return [(name, getattr(self, name)) for name in type(self).model_fields]


class Readiness(BaseModel):
    """Whether the service can do its work.

    A `degraded` service takes requests, but a part needs an operator's attention.
    """

    status: PartStatus = Field(description="The worst status of all parts; never `unknown`.")
    parts: Parts | None = Field(
        default=None,
        description="The parts, only for callers with the scope `monitor` and for local requests.",
        exclude_if=lambda parts: parts is None,
    )
