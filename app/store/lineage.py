"""Which tasks repeat others in a store."""

from typing import NamedTuple, Protocol

from app.store.clock import StoreClock


class Descendant(NamedTuple):
    """A task that repeats another one: its uuid, and the user whom a caller must be allowed to read."""

    uuid: str
    slurm_username: str


class LineageStore(StoreClock, Protocol):
    """A store of records that say which record their task was resubmitted from.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def list_resubmissions(self, uuid: str, limit: int) -> list[Descendant]:
        """Return up to `limit` tasks that were resubmitted from the task with this uuid, the newest first."""
