"""What slurm-proxy asks of a database: the TaskStore protocol, kept by MongoDB and by SQLite."""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app.job_state import JobState
from app.models.api_key import ApiKey
from app.models.record import Change, Notification, NotificationStatus, OpenJob, TaskRecord

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE = timedelta(seconds=5)  # by which processes may disagree about the store's time
NEVER = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


def log_impossible(what: str) -> None:
    """Log that a lease, a claim, a wait or a window ends later than possible, and is taken over."""
    logger.warning("%s lasts longer than possible, because a clock was set back; it is taken over", what)


@dataclass(frozen=True, slots=True)
class Claim:
    """A notification that this process may send until its claim expires."""

    uuid: str
    notification: Notification


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt to send."""

    status: NotificationStatus
    at: datetime
    attempt_after: datetime | None = None  # the next attempt, where there is one
    error: str | None = None
    recipient: str | None = None  # whom it is gathered for
    was_attempt: bool = True


class TaskStore(Protocol):
    """Stores records. What a method has acknowledged survives kill -9; each method is atomic.

    Times are UTC, to the millisecond.

    Raises:
        StoreUnavailable: From every method, if the database does not answer.
    """

    def prepare(self) -> None:
        """Connect, and create the indexes that the queries need."""

    def record_count(self) -> int | None:
        """Return about how many records there are; None if the store has not been created yet."""

    def now(self) -> datetime:
        """Return the store's time, the one clock of all processes that share it.

        Every time that the store keeps and compares comes from this clock. A call seldom needs a request.

        Raises:
            StoreUnavailable: The store's time was never read, and cannot be read now.
        """

    def add(self, record: TaskRecord) -> None:
        """Add a new record. A record whose submission failed is replaced.

        Raises:
            DuplicateUuid: The uuid or the idempotency key of the record is used already.
        """

    def release(self, record: TaskRecord) -> None:
        """Delete this reservation, and no other of its uuid, which may then be used again."""

    def fail(self, record: TaskRecord, reason: str, at: datetime) -> bool:
        """End this reservation without a job; its uuid and its key may be used again."""

    def accept(
        self, record: TaskRecord, job_id: int, state: JobState, at: datetime, warnings: Sequence[str] = ()
    ) -> bool:
        """Turn this reservation, even a failed one, into the record of a job; False if it has one."""

    def by_idempotency_key(self, key: str, within: float | None = None) -> TaskRecord | None:
        """Return the record with this key. `within`: seconds, instead of the configured time."""

    def by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        """Return the records with these uuids, by uuid. `within`: seconds, instead of the configured time."""

    def by_job_id(self, job_id: int) -> TaskRecord | None:
        """Return the newest record of that job id; Slurm reuses ids."""

    def by_state(self, state: JobState, usernames: Collection[str] | None, limit: int) -> list[TaskRecord]:
        """Return up to `limit` records in that state, the newest first; only of these users, unless None."""

    def usernames(self) -> list[str]:
        """Return the users that have a record."""

    def open_jobs(self) -> list[OpenJob]:
        """Return all jobs that have not ended."""

    def ended_since(self, at: datetime, limit: int) -> list[OpenJob]:
        """Return up to `limit` jobs whose end was recorded since then, the newest first, without UNKNOWN."""

    def count_open(self, caller: str) -> int:
        """Return how many tasks of this caller have not ended, reservations included."""

    def reservations(self, before: datetime, after: datetime = NEVER) -> list[TaskRecord]:
        """Return the reservations made before `before`, or later than `after`.

        It is not known yet whether they have a job. A reservation that is dated later than now was made
        before the clock was set back.
        """

    def apply(self, changes: Iterable[Change], fence: int) -> int:
        """Apply each change whose record is still in the state `before`; return how many were applied.

        A change is written together with its notifications. All changes are one write, in which each record
        is atomic. Nothing is written for a leader whose `fence` is no longer the newest.
        """

    def claim(
        self, method: str, token: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        """Claim one notification of `method` that is due at `now`; after `until` others may claim it.

        A claim that ends later than `until`, or a wait that ends later than `latest`, shows that the clock
        was set back. Such a notification is due, too. CLOCK_TOLERANCE is added to both times.
        """

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        """Store the outcome of a claimed notification; return False if the claim had been taken over.

        SENT is stored even if another process has the claim by now. If the notification is sent or dead, the
        others in its digest get the same status.
        """

    def gather(self, claim: Claim, now: datetime, digest: str) -> tuple[str, list[Claim]]:
        """Tie due notifications that wait for a digest to the same recipient to the claimed one, its head.

        Return the id of the digest and the other notifications in it. Only the first call ties, with `digest`
        as the id. Later calls return the same digest, whichever process has claimed the head.
        """

    def take_slot(self, recipient: str, most: int, now: datetime, until: datetime) -> datetime | None:
        """Count a message to `recipient`; return None if there was room, else when the window ends.

        A window has at most `most` messages; one that begins now ends at `until`. A window that ends later
        than `until` plus CLOCK_TOLERANCE shows that the clock was set back: a new window replaces it, and
        this is logged.
        """

    def give_slot_back(self, recipient: str) -> None:
        """Give back the slot of a message that was not sent."""

    def notification(self, id_: str) -> Claim | None:
        """Return the notification with that id."""

    def notifications(self, status: NotificationStatus, method: str | None, most: int) -> list[Claim]:
        """Return up to `most` notifications in that status, by that method or any, the oldest first."""

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
        """Make dead and retrying notifications due at once; return how many there were.

        That is one of them, or all by a method, or all. Their attempts and their retry deadline start anew. A
        retrying head keeps its digest.
        """

    def lead(self, owner: str, now: datetime, until: datetime) -> int | None:
        """Acquire or renew the monitor's lease until `until`; return None while another process holds it.

        The fencing token that is returned grows whenever the lease goes to another owner. A lease that ends
        later than `until` plus CLOCK_TOLERANCE shows that the clock was set back: it is taken over, and this
        is logged.
        """

    def resign(self, owner: str) -> None:
        """Release the lease, so that another process can lead at once."""

    def add_key(self, key: ApiKey) -> bool:
        """Add a key; return False if another key of its name is valid at the time of its creation."""

    def key(self, id_: str, within: float | None = None) -> ApiKey | None:
        """Return the key with that id, even if it is revoked or expired.

        `within`: seconds that it may take, instead of the configured time.
        """

    def all_keys(self) -> list[ApiKey]:
        """Return all keys, the oldest first."""

    def revoke_key(self, id_: str, at: datetime) -> bool:
        """Revoke a key; return False if there is no such key, or it is revoked already."""

    def key_used(self, id_: str, at: datetime) -> None:
        """Store when the key was last used."""

    def ping(self) -> None:
        """Return if the database answers.

        Raises:
            StoreUnavailable: It does not.
        """

    def close(self) -> None:
        """Close the connections."""
