"""The lineage of tasks in a store: which task was resubmitted from which."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.store.clock import StoreClock


class Descendant(NamedTuple):
    """A resubmitted task: its uuid, and the user for whom a caller needs the permission to read."""

    uuid: str
    slurm_username: str


class LineageStore(StoreClock, Protocol):
    """A store that knows from which task each task was resubmitted.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def list_resubmissions(
        self, uuid: str, limit: int, usernames: Sequence[str] | None = None
    ) -> list[Descendant]:
        """Return up to `limit` tasks that were resubmitted from the task with this uuid, the newest first.

        `usernames`: the users whose tasks to return; None for all users.
        """
