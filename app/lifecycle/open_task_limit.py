"""The limit on the open tasks of one caller."""

from app.errors import TooManyJobs
from app.models.caller import Caller
from app.store.records import RecordStore

_TRY_AGAIN_SECONDS = 60.0  # after which a job of the caller may have ended


def require_room(store: RecordStore, caller: Caller, limit: int, additional: int = 0) -> None:
    """Check the limit of the caller's open tasks.

    Reservations count, so that two simultaneous requests cannot both take the last free place.

    Args:
        store: The records.
        caller: The caller.
        limit: How many open tasks the caller may have; 0 for any number.
        additional: How many tasks to count that have no reservation.

    Raises:
        TooManyJobs: The caller has too many open tasks.
    """
    if limit and store.count_open_tasks(caller.name) + additional > limit:
        words = f"{caller.name} has {limit} jobs waiting or running already"
        raise TooManyJobs(words, _TRY_AGAIN_SECONDS)
