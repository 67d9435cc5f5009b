"""API keys: made, listed, revoked and checked.

A key is `sp_<id>_<secret>`. The secret has 256 random bits, so its SHA-256 gives nothing away, and a slow
hash would only cost the server time.
"""

import hashlib
import hmac
import logging
import secrets
from datetime import datetime, timedelta

from app.errors import InvalidRequest, NotAuthenticated, StoreUnavailable
from app.models.api_key import ApiKey
from app.models.caller import Caller, Grant
from app.models.rules import is_one_line
from app.store import TaskStore

logger = logging.getLogger(__name__)

PREFIX = "sp_"
_LOOKUP_SECONDS = 1.0  # a made-up key must not hold a thread for longer while the store is away
_TOUCHED_AGAIN = timedelta(minutes=1)


class Keys:
    """The keys in the store. A revoked one is refused from the next request on, by every process."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._use_recorded_at: dict[
            str, datetime
        ] = {}  # by key id, in this process; also of attempts that failed

    def create(self, name: str, grant: Grant, lasts: timedelta | None) -> tuple[str, ApiKey]:
        """Create a key; return its text, which is shown only once, and the stored key.

        Raises:
            InvalidRequest: The name is not valid, or is that of another valid key.
        """
        if not is_one_line(name) or len(name) > 100:
            raise InvalidRequest(["name: must be one line of at most 100 characters"])
        now = self._store.now()
        id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"{PREFIX}{id_}_{secret}"
        expires = now + lasts if lasts else None
        key = ApiKey(id=id_, name=name, hash=_hash(text), grant=grant, created_at=now, expires_at=expires)
        if not self._store.add_key(key):
            raise InvalidRequest([f"name: there is a key called {name} already; revoke it first"])
        return text, key

    def all(self) -> list[ApiKey]:
        return self._store.all_keys()

    def revoke(self, id_: str) -> bool:
        """Revoke a key; return False if there is no such key, or if it is revoked already."""
        return self._store.revoke_key(id_, self._store.now())

    def caller(self, text: str) -> Caller:
        """Return the caller whose key that is.

        Raises:
            NotAuthenticated: The key is unknown, expired or revoked.
            StoreUnavailable: The store does not answer.
        """
        parts = text.split("_", 2)
        key = self._store.key(parts[1], _LOOKUP_SECONDS) if len(parts) == 3 else None
        known = key.hash if key else _hash("")
        is_right = hmac.compare_digest(_hash(text), known)
        if key is None or not is_right or not key.is_valid(now := self._store.now()):
            raise NotAuthenticated("the key is not valid: it is unknown, expired or revoked")
        self._record_use(key, now)
        return Caller(f"key:{key.name}:{key.id}", (key.grant,))

    def _record_use(self, key: ApiKey, now: datetime) -> None:
        """Store when the key was last used, at most once a minute.

        A store that can be read but not written, as on a full disk, does not stop the request.
        """
        for last in (key.last_used_at, self._use_recorded_at.get(key.id)):
            if last is not None and last <= now < last + _TOUCHED_AGAIN:
                return
        self._use_recorded_at[key.id] = now
        try:
            self._store.key_used(key.id, now)
        except StoreUnavailable as error:
            logger.warning("the last use of the key %s cannot be stored: %s", key.id, error)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
