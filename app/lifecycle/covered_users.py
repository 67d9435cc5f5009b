"""Find the users whose tasks a caller may act on."""

from collections.abc import Sequence
from itertools import chain

from app.access.authorization import require_scope
from app.models.caller import Caller, Scope
from app.models.task_filter import TaskFilter
from app.store.records import RecordStore


def require_one_scope(caller: Caller, scopes: Sequence[Scope]) -> None:
    """Check that the caller has one of the scopes for some user.

    Raises:
        Forbidden: The caller has none of the scopes; the message names the first one.
    """
    if not any(map(caller.is_allowed, scopes)):
        require_scope(caller, scopes[0])


def find_covered_users(
    store: RecordStore, caller: Caller, scopes: Sequence[Scope], wanted: TaskFilter
) -> list[str] | None:
    """Return the users for whom the caller has one of the scopes; None for all users.

    Of users that the filter excludes, or that have no record, some may be missing.

    Raises:
        Forbidden: The caller has none of the scopes; the message names the first one.
    """
    require_one_scope(caller, scopes)
    held = [scope for scope in scopes if caller.is_allowed(scope)]
    if any(caller.is_allowed_for_all(scope) for scope in held):
        return None
    grants = list(chain.from_iterable(map(caller.find_grants, held)))
    if wanted.username:
        names = list(wanted.username)
    elif any(grant.groups for grant in grants):
        names = store.list_usernames()
    else:
        names = list(dict.fromkeys(chain.from_iterable(grant.users for grant in grants)))
    return [name for name in names if any(caller.is_allowed(scope, name) for scope in held)]
