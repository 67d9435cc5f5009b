"""Callers and their permissions: scopes, grants, and the users whom a grant covers."""

import grp
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from app.models.rules import Line, Rule
from app.models.username import Username


class Scope(StrEnum):
    """A kind of action, for which a caller needs permission."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    MONITOR = "monitor"  # health, metrics, lists and messages of all users
    ADMIN = "admin"  # the routes of operators; includes MONITOR


ORDINARY_SCOPES = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})
# The scopes that are for all users and have no limits.
OPERATOR_SCOPES = (Scope.ADMIN, Scope.MONITOR)


class Grant(BaseModel):
    """A permission: the scopes, the users, and the limits. A limit that is None does not apply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: Annotated[frozenset[Scope], Field(min_length=1), Rule(f"be one or more of {', '.join(Scope)}")]
    users: Annotated[
        Literal["any"] | tuple[Username, ...],
        Rule('be "any", or user names'),
    ] = ()
    groups: tuple[Line, ...] = ()  # Unix groups of this machine, whose members are users, too
    partitions: tuple[Line, ...] | None = None
    accounts: tuple[Line, ...] | None = None
    recipients: tuple[Line, ...] | None = None  # patterns of method:receiver, such as email:*@example.com

    @model_validator(mode="after")
    def _operators_have_no_limits(self) -> Self:
        limits = (self.partitions, self.accounts, self.recipients)
        scope = next((scope for scope in OPERATOR_SCOPES if scope in self.scopes), None)
        if scope is not None and (self.users != "any" or limits != (None, None, None)):
            raise ValueError(
                f"the scope {scope} is for all users and jobs: give it with any user, and without limits"
            )
        return self

    @field_validator("recipients")
    @classmethod
    def _require_methods(
        cls, patterns: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        """Require `method:receiver`. With the channels as context, each pattern must fit one of them.

        The grants of stored keys are read without context, so that no key stops working.
        """
        channels: Mapping[str, Any] = (info.context or {}).get("methods", {})
        for pattern in patterns or ():
            if ":" not in pattern:
                raise ValueError("must be patterns of method:receiver, such as email:*@example.com")
            if channels:
                _require_receivers(pattern, channels)
        return patterns

    def has_scope(self, scope: Scope) -> bool:
        """Return whether the grant has the scope; admin includes monitor."""
        return scope in self.scopes or (scope is Scope.MONITOR and Scope.ADMIN in self.scopes)

    def covers_user(self, username: str) -> bool:
        """Return whether the grant is for this user, by name or by a Unix group."""
        return self.users == "any" or username in self.users or _is_member(username, self.groups)


class ClaimGrant(BaseModel):
    """A grant for all callers whose token has `value` as its `claim`, or in the list of this claim."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Line
    value: Line
    grant: Grant

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a token with these claims gets the grant."""
        found = claims.get(self.claim)
        return found == self.value or (isinstance(found, list) and self.value in found)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller; the permissions of all `grants` add up."""

    name: str
    grants: tuple[Grant, ...]
    remark: str = ""  # for the error that a caller without any grant gets

    def is_allowed(self, scope: Scope, username: str | None = None) -> bool:
        """Return whether the caller has the scope for this user; without a user, for any user at all."""
        return bool(self.find_grants(scope, username))

    def is_allowed_for_all(self, scope: Scope) -> bool:
        """Return whether the caller has the scope for every user."""
        return any(grant.users == "any" for grant in self.find_grants(scope))

    def find_grants(self, scope: Scope, username: str | None = None) -> Sequence[Grant]:
        """Return the grants with this scope for this user; without a user, for any user at all."""
        return [
            grant
            for grant in self.grants
            if grant.has_scope(scope) and (username is None or grant.covers_user(username))
        ]


def _require_receivers(pattern: str, channels: Mapping[str, Any]) -> None:
    """Require that the pattern of a grant can fit receivers of a channel.

    Raises:
        ValueError: There is no such method, or none of the methods has such receivers.
    """
    method, _, receivers = pattern.partition(":")
    meant = [name for name in channels if fnmatchcase(name, method)]
    faults = []
    for name in meant if receivers != "*" else ():
        try:
            channels[name].split_pattern(receivers)
        except ValueError as error:
            faults.append(f"{pattern} matches no receiver of {name}: the part after the colon {error}")
    if not meant:
        raise ValueError(f"there is no method {method}: it must be one of {', '.join(channels)}")
    if len(faults) == len(meant):
        raise ValueError(faults[0])


def _is_member(username: str, groups: Sequence[str]) -> bool:
    if not groups:
        return False
    try:
        ids = os.getgrouplist(username, pwd.getpwnam(username).pw_gid)
    except KeyError:  # a user that this machine does not know
        return False
    return bool({_name_of(number) for number in ids} & set(groups))


def _name_of(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return ""


UNAUTHENTICATED_CALLER = Caller("anybody", (Grant(scopes=ORDINARY_SCOPES, users="any"),))
OPERATOR = Caller("operator", (Grant(scopes=frozenset(Scope), users="any"),))
