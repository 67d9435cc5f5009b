"""Describe a caller: name, permissions, and what is left of the limits."""

from app.models.caller import Caller, Grant, Scope
from app.models.caller_answers import CallerLimits, DescribedCaller, RemainingLimit, ShownGrant
from app.store.records import RecordStore


class CallerDescription:
    """The use case of `GET /whoami`."""

    def __init__(
        self,
        store: RecordStore,
        *,
        authentication_disabled: bool,
        requests_per_minute: int = 0,
        max_open_tasks: int = 0,
    ) -> None:
        """Create the use case; a limit of 0 means that there is none."""
        self._store = store
        self._authentication_disabled = authentication_disabled
        self._requests_per_minute = requests_per_minute
        self._max_open_tasks = max_open_tasks

    def describe(self, caller: Caller, requests_left: int | None) -> DescribedCaller:
        """Describe the caller. Open tasks are counted only if they are limited.

        Args:
            caller: The caller.
            requests_left: How many requests are left after this one; None if they are not counted.
        """
        requests = open_tasks = None
        if self._requests_per_minute:
            requests = RemainingLimit(limit=self._requests_per_minute, remaining=requests_left)
        if limit := self._max_open_tasks:
            left = max(0, limit - self._store.count_open_tasks(caller.name))
            open_tasks = RemainingLimit(limit=limit, remaining=left)
        return DescribedCaller(
            name=caller.name,
            authenticated=not self._authentication_disabled,
            grants=[_describe_grant(grant) for grant in caller.grants],
            limits=CallerLimits(requests_per_minute=requests, open_tasks=open_tasks),
        )


def _describe_grant(grant: Grant) -> ShownGrant:
    scopes = [scope for scope in Scope if scope in grant.scopes]
    return ShownGrant.model_validate({**grant.model_dump(mode="json"), "scopes": scopes})
