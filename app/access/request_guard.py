"""Authenticate the caller of a request, and apply the rate limit of requests."""

from collections.abc import Mapping
from typing import Protocol

from app.access.failed_attempts import FailedAttempts
from app.access.keys import PREFIX
from app.access.request_limit import RequestLimit
from app.errors import Forbidden, NotAuthenticated, TooManyRequests
from app.models.caller import OPERATOR, UNAUTHENTICATED_CALLER, Caller
from app.store.rate_limiter import RateLimiter


class Authenticator(Protocol):
    """A method of authentication, such as API keys."""

    def authenticate(self, text: str) -> Caller:
        """Return the caller who has this key or token.

        Raises:
            NotAuthenticated: The key or the token is not valid.
        """


class RequestGuard:
    """The check that each request passes first: authentication, and the caller's rate limit."""

    def __init__(
        self,
        rate_limiter: RateLimiter,
        authenticators: Mapping[str, Authenticator],
        *,
        requests_per_minute: int,
        loopback_only: bool,
        failed_attempts: FailedAttempts,
    ) -> None:
        """Set up the guard.

        Args:
            rate_limiter: The store, which counts the requests of all processes.
            authenticators: The methods of authentication, by their names in ACCESS_METHODS.
            requests_per_minute: The rate limit of one caller; 0 for no limit.
            loopback_only: Whether a server without authentication serves local requests only.
            failed_attempts: The limit of failed attempts to authenticate.
        """
        self._rate_limiter = rate_limiter
        self._authenticators = authenticators
        self._requests_per_minute = requests_per_minute
        self._request_limit = RequestLimit(rate_limiter, requests_per_minute)
        self._loopback_only = loopback_only
        self.failed_attempts = failed_attempts

    @property
    def authentication_disabled(self) -> bool:
        """Return whether requests need no authentication."""
        return not self._authenticators

    @property
    def requests_per_minute(self) -> int:
        """Return the rate limit of one caller; 0 for no limit, as without authentication."""
        return 0 if self.authentication_disabled else self._requests_per_minute

    def authenticate(self, authorization: str | None, *, not_local: str | None = None) -> Caller:
        """Return the caller that the header `Authorization` authenticates.

        Without authentication, a local request is the operator's. `not_local`: the reason why a request does
        not count as local; None if it does.

        Raises:
            NotAuthenticated: The header is missing, or holds no valid key or token.
            IdentityProviderUnavailable: A token cannot be checked now.
            Forbidden: The server has no authentication, and serves local requests only.
        """
        if self.authentication_disabled:
            return self._unauthenticated_caller(not_local)
        kind, _, text = (authorization or "").strip().partition(" ")
        text = text.strip()
        if kind.lower() != "bearer" or not text:
            raise NotAuthenticated("send a key or a token in the header: Authorization: Bearer <key>")
        authenticator = self._authenticators.get("keys" if text.startswith(PREFIX) else "oidc")
        if authenticator is None:
            raise NotAuthenticated(f"this server accepts only {' and '.join(self._authenticators)}")
        return authenticator.authenticate(text)

    def _unauthenticated_caller(self, not_local: str | None) -> Caller:
        if not_local is None:
            return OPERATOR
        if self._loopback_only:
            raise Forbidden(not_local)
        return UNAUTHENTICATED_CALLER

    def count_request(self, caller: Caller) -> None:
        """Count a request of the caller, over all processes.

        Raises:
            TooManyRequests: The caller has used up the rate limit.
        """
        if not (limit := self.requests_per_minute):
            return
        use = self._request_limit.count(_name_limit(caller))
        if use is not None and use.full_until is not None:
            left = use.full_until - self._rate_limiter.now()
            raise TooManyRequests(f"more than {limit} requests in a minute", max(0.0, left.total_seconds()))

    def count_requests_left(self, caller: Caller) -> int | None:
        """Return how many requests are left to the caller in this minute; None if they are not counted."""
        return self._request_limit.count_left(_name_limit(caller)) if self.requests_per_minute else None


def _name_limit(caller: Caller) -> str:
    return f"requests:{caller.name}"
