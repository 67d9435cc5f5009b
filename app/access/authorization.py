"""Check a request against the grants of its caller.

The message of each Forbidden that is raised names the field that no grant covers.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from app.errors import Forbidden
from app.models.caller import Caller, Grant, Scope
from app.models.task import Task, WatchedTask
from app.senders import SENDERS
from app.senders.base import Receiver

Receivers = Mapping[str, Sequence[Receiver]]  # the receivers of a task, by method


def require_scope(caller: Caller, scope: Scope) -> None:
    """Check that the caller has the scope for some user.

    Raises:
        Forbidden: No grant of the caller has this scope.
    """
    if not caller.is_allowed(scope):
        raise Forbidden(f"{caller.name} has no grant with the scope {scope}")


def require_grants(caller: Caller, scope: Scope, username: str, field: str) -> Sequence[Grant]:
    """Return the grants that give the caller this scope for this user.

    Raises:
        Forbidden: The caller has no such grant; the message names `field`.
    """
    grants = caller.find_grants(scope, username)
    if not grants:
        raise Forbidden(f"{field}: {caller.name} may not {scope} for {username}")
    return grants


def require_allowed_user(username: str, refused_users: Collection[str], field: str) -> None:
    """Check that this service acts for this user at all, whatever the grants of the caller.

    Raises:
        Forbidden: The user is one of `refused_users`, such as root.
    """
    if username in refused_users:
        raise Forbidden(f"{field}: this server does not act as {username}")


def require_grant_for_task(caller: Caller, task: Task | WatchedTask, receivers: Receivers, path: str) -> None:
    """Check that one grant of the caller covers the whole task.

    Raises:
        Forbidden: No grant covers the task; the message names a field that is not covered.
    """
    grants = require_grants(caller, Scope.SUBMIT, task.username, f"{path}.username")
    refusals = [_refusal(grant, task, receivers) for grant in grants]
    if all(refusals):
        raise Forbidden(f"{path}.{refusals[0]}")


def _refusal(grant: Grant, task: Task | WatchedTask, receivers: Receivers) -> str | None:
    """Return the first field that this grant does not cover, with the reason; None if it covers the task."""
    options: Any = task.slurm if isinstance(task, Task) else None
    for name, allowed in (("partition", grant.partitions), ("account", grant.accounts)):
        if options is not None and allowed is not None:
            wanted = {word.strip() for word in (getattr(options, name) or "").split(",")}
            if not wanted <= set(allowed):
                return f"slurm.{name}: must be set to one or more of {', '.join(allowed)}"
    if grant.recipients is None:
        return None
    for method, names in receivers.items():
        for receiver in names:
            if not any(_covers(pattern, method, receiver) for pattern in grant.recipients):
                words = f"no pattern of the granted recipients covers {method}:{receiver.text}"
                return f"notification.params.{method}: {words}"
    return None


def _covers(pattern: str, method: str, receiver: Receiver) -> bool:
    """Return whether a pattern such as `email:*@example.com` covers the receiver.

    Each part is matched by itself, so that no `*` reaches beyond its part. A sole `*` covers all receivers.
    """
    methods, _, receivers = pattern.partition(":")
    if not fnmatchcase(method, methods):
        return False
    if receivers == "*":
        return True
    try:
        parts = SENDERS[method].split_pattern(receivers)
    except ValueError:
        return False
    return len(parts) == len(receiver.parts) and all(map(fnmatchcase, receiver.parts, parts))
