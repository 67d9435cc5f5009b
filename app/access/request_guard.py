"""Authenticates callers, and limits how often each of them may ask."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from app.access.failed_attempts import FailedAttempts
from app.access.keys import PREFIX
from app.clock import steady_seconds
from app.errors import Forbidden, NotAuthenticated, StoreUnavailable, TooManyRequests
from app.models.caller import ANYBODY, OPERATOR, Caller
from app.store import TaskStore

logger = logging.getLogger(__name__)

_WINDOW = timedelta(minutes=1)
_COUNT_PAUSE = 10.0  # seconds without counting, after a request that could not be counted


class Proof(Protocol):
    """A way to authenticate callers, such as API keys."""

    def caller(self, text: str) -> Caller:
        """Return the caller whose key or token this is.

        Raises:
            NotAuthenticated: The key or the token is not valid.
        """


class Gate:
    """Authenticates callers by `proofs`, which are named as in ACCESS_METHODS."""

    def __init__(
        self,
        store: TaskStore,
        proofs: Mapping[str, Proof],
        *,
        requests_a_minute: int,
        is_private: bool,
        failed_attempts: FailedAttempts,
    ) -> None:
        """Set up the gate. `is_private`: without authentication, only this machine is served."""
        self._store = store
        self._proofs = proofs
        self._requests_a_minute = requests_a_minute
        self._count_again_at = 0.0
        self.is_private = is_private
        self.failed_attempts = failed_attempts

    @property
    def is_open(self) -> bool:
        """Return whether requests need no authentication."""
        return not self._proofs

    def caller(self, authorization: str | None, *, not_local: str | None = None) -> Caller:
        """Return the caller that the header `Authorization` authenticates.

        Without authentication, a local request is the operator's. `not_local`: the reason why a request does
        not count as local; None if it does.

        Raises:
            NotAuthenticated: The header is missing, or holds no valid key or token.
            IdentityProviderUnavailable: A token cannot be checked now.
            Forbidden: The server has no authentication, and serves local requests only.
        """
        if self.is_open:
            return self._unauthenticated_caller(not_local)
        kind, _, text = (authorization or "").strip().partition(" ")
        text = text.strip()
        if kind.lower() != "bearer" or not text:
            raise NotAuthenticated("send a key or a token in the header: Authorization: Bearer <key>")
        proof = self._proofs.get("keys" if text.startswith(PREFIX) else "oidc")
        if proof is None:
            raise NotAuthenticated(f"this server takes {' and '.join(self._proofs)} only")
        return proof.caller(text)

    def _unauthenticated_caller(self, not_local: str | None) -> Caller:
        if not_local is None:
            return OPERATOR
        if self.is_private:
            raise Forbidden(not_local)
        return ANYBODY

    def count(self, caller: Caller) -> None:
        """Count a request of the caller; all processes count together.

        While the store can be read but not written, as on a full disk, requests are not counted.

        Raises:
            TooManyRequests: The caller has used up the rate limit.
        """
        if self.is_open or not self._requests_a_minute or steady_seconds() < self._count_again_at:
            return
        now = self._store.now()
        try:
            opens = self._store.take_slot(
                f"requests:{caller.name}", self._requests_a_minute, now, now + _WINDOW
            )
        except StoreUnavailable as error:
            self._count_again_at = steady_seconds() + _COUNT_PAUSE
            logger.warning(
                "the rate limit is off for %.0f s, because requests cannot be counted: %s",
                _COUNT_PAUSE,
                error,
            )
            return
        if opens is not None:
            words = f"more than {self._requests_a_minute} requests in a minute"
            raise TooManyRequests(words, (opens - now).total_seconds())
