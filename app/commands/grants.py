"""Make the grant of a key from the options of the command line, and describe it in words."""

import grp
import pwd
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import click

from app.models.caller import OPERATOR_SCOPES, ORDINARY_SCOPES, Grant
from app.models.username import describe_username_rule, is_username
from app.senders import SENDERS


def build_grant(options: Mapping[str, Any], username_pattern: str | None) -> Grant:
    """Return the grant that the options of `keys create` describe.

    Raises:
        UsageError: The options contradict each other, or a user name is not valid.
        ValidationError: An option has a value that is not valid.
    """
    named = (*options["users"], *options["groups"])
    if options["any_user"] and named:
        raise click.UsageError("--any-user excludes --user and --group: give one of them")
    for scope in OPERATOR_SCOPES:
        if scope in options["scopes"] and not options["any_user"]:
            raise click.UsageError(f"the scope {scope} is for all users: it needs --any-user")
    if not (options["any_user"] or named):
        raise click.UsageError("name the users that the key may act for: give --user, --group or --any-user")
    if "any" in options["users"]:
        raise click.UsageError("--user any means a user called any: give --any-user for all users")
    if odd := [name for name in options["users"] if not is_username(name, username_pattern)]:
        raise click.UsageError(f"--user {odd[0]}: must {describe_username_rule(username_pattern)}")
    fields = {
        "scopes": options["scopes"] or ORDINARY_SCOPES,
        "users": "any" if options["any_user"] else options["users"],
        "groups": options["groups"],
        **{name: options[name] or None for name in ("partitions", "accounts", "recipients")},
    }
    return Grant.model_validate(fields, context={"methods": SENDERS})


def require_no_refused_user(grant: Grant, refused_users: Collection[str]) -> None:
    """Check that the grant names no user for whom this service refuses every action.

    Raises:
        UsageError: The grant names such a user.
    """
    refused = [name for name in grant.users if name in refused_users]
    if grant.users != "any" and refused:
        words = "this user is refused unless TASK_ALLOWED_SERVICE_USERS names it"
        raise click.UsageError(f"--user {refused[0]}: {words}")


def list_grant_warnings(grant: Grant) -> Iterator[str]:
    """Yield a warning for each name that this machine does not know."""
    for user in () if grant.users == "any" else grant.users:
        if not _is_known(pwd.getpwnam, user):
            yield f"this machine has no user {user}"
    for group in grant.groups:
        if not _is_known(grp.getgrnam, group):
            yield f"this machine has no group {group}, and so none of its members"


def _is_known(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except (KeyError, ValueError):  # ValueError: a text that cannot be a name
        return False
    return True


def describe_grant(grant: Grant) -> str:
    """Return a grant in words, for the list of keys and for the audit trail."""
    named = [*grant.users, *(f"group {name}" for name in grant.groups)]
    words = f"{' '.join(sorted(grant.scopes))} for {'any user' if grant.users == 'any' else ', '.join(named)}"
    for name in ("partitions", "accounts", "recipients"):
        if (allowed := getattr(grant, name)) is not None:
            words += f"; {name} {', '.join(allowed)}"
    return words
