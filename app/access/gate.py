"""Lets a caller in: finds out who he is, and whether he has not asked too often."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from app.access.keys import PREFIX
from app.errors import NotAuthenticated, TooManyRequests
from app.models.caller import ANYBODY, OPERATOR, Caller
from app.store import TaskStore

_WINDOW = timedelta(minutes=1)


class Proof(Protocol):
    """One way to prove who one is."""

    def caller(self, text: str) -> Caller:
        """NotAuthenticated for what proves nothing."""


class Gate:
    """`proofs` by their names in ACCESS_METHODS; without any, everybody is let in."""

    def __init__(
        self, store: TaskStore, proofs: Mapping[str, Proof], *, requests_a_minute: int, is_private: bool
    ) -> None:
        """`is_private`: where nobody must prove anything, this machine alone is served."""
        self._store = store
        self._proofs = proofs
        self._requests_a_minute = requests_a_minute
        self.is_private = is_private

    @property
    def is_open(self) -> bool:
        """Nobody must prove anything."""
        return not self._proofs

    def caller(self, authorization: str | None, *, is_local: bool) -> Caller:
        """`authorization`: the header. Where nobody must prove anything, who sits here may do all."""
        if self.is_open:
            return OPERATOR if is_local else ANYBODY
        kind, _, text = (authorization or "").strip().partition(" ")
        text = text.strip()
        if kind.lower() != "bearer" or not text:
            raise NotAuthenticated("send a key or a token in the header: Authorization: Bearer <key>")
        proof = self._proofs.get("keys" if text.startswith(PREFIX) else "oidc")
        if proof is None:
            raise NotAuthenticated(f"this server takes {' and '.join(self._proofs)} only")
        return proof.caller(text)

    def count(self, caller: Caller) -> None:
        """Count a request of the caller; all processes count together.

        Raises:
            TooManyRequests: The caller has used up the rate limit.
        """
        if self.is_open or not self._requests_a_minute:
            return
        now = self._store.now()
        opens = self._store.take_slot(f"requests:{caller.name}", self._requests_a_minute, now, now + _WINDOW)
        if opens is not None:
            words = f"more than {self._requests_a_minute} requests in a minute"
            raise TooManyRequests(words, (opens - now).total_seconds())
