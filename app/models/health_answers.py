"""The answer of `GET /readyz` (`Readiness`); that of `GET /healthz` is in `answers.py`.

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from enum import StrEnum

from pydantic import BaseModel, Field

from app.models.job import Utc


class PartStatus(StrEnum):
    """How a part fares; `unknown` if that cannot be found out now."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"
    UNKNOWN = "unknown"


class Part(BaseModel):
    """A part of the service, and how it fares."""

    status: PartStatus
    reason: str | None = Field(
        default=None, description="Why the part is not ready; null for a part that is."
    )


class StorePart(Part):
    """The database, which a small write has tried a moment ago."""

    write_seconds: float | None = Field(default=None, description="How long the write took.")


class LeaderPart(Part):
    """The process that polls Slurm, one of all processes."""

    process: str | None = Field(
        default=None, description="The name of the process, which begins with its host."
    )
    lease_until: Utc | None = Field(
        default=None, description="When another process takes over, unless it goes on."
    )


class PollPart(Part):
    """The polls of the leader."""

    finished_at: Utc | None = Field(default=None, description="When the last poll that succeeded has ended.")
    age_seconds: float | None = Field(default=None, description="How long ago that was.")
    duration_seconds: float | None = Field(default=None, description="How long that poll took.")


class SlurmPart(Part):
    """slurmctld, as the leader and the requests of callers see it."""

    checked_at: Utc | None = Field(default=None, description="When the leader last asked.")


class AccountingPart(Part):
    """slurmdbd, as the leader sees it."""

    present: bool | None = Field(
        default=None, description="Whether the cluster has a slurmdbd; null if unknown."
    )


class ReservationsPart(Part):
    """The tasks for which no job is known yet."""

    open: int | None = None
    oldest_seconds: float | None = Field(default=None, description="The age of the oldest one.")


class NotificationsPart(Part):
    """The messages that should be sent now."""

    due: int | None = None
    oldest_seconds: float | None = Field(default=None, description="How long the oldest one has been due.")


class DeadLettersPart(Part):
    """The messages that were given up: see `GET /notifications`."""

    dead: int | None = None
    newest_seconds: float | None = Field(default=None, description="The age of the newest one.")


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

    `degraded` is ready, too: it takes requests, but a part needs an operator's attention.
    """

    status: PartStatus = Field(description="The worst status of all parts; never `unknown`.")
    parts: Parts | None = Field(
        default=None,
        description="The parts, only for callers with the scope `monitor` and for local requests.",
        exclude_if=lambda parts: parts is None,
    )
