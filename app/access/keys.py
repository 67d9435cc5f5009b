"""Create, list, revoke and check API keys.

A key is `sp_<id>_<secret>`. The secret has 256 random bits, so its SHA-256 reveals nothing, and a slow
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
from app.store.keys import KeyStore

logger = logging.getLogger(__name__)

PREFIX = "sp_"
_LOOKUP_TIMEOUT_SECONDS = 1.0  # a made-up key must not hold a thread for longer while the store is away
_RECORD_USE_EVERY = timedelta(minutes=1)


class ApiKeys:
    """The API keys in the store. Every process refuses a revoked key from the next request on."""

    def __init__(self, store: KeyStore) -> None:
        """Use the keys in `store`."""
        self._store = store
        # When this process last recorded the use of each key, by key id; also where that failed.
        self._use_recorded_at: dict[str, datetime] = {}

    def create(self, name: str, grant: Grant, lifetime: timedelta | None) -> tuple[str, ApiKey]:
        """Create a key; return its text, which is shown only once, and the stored key.

        Raises:
            InvalidRequest: The name is not valid, or is that of another valid key.
        """
        if not is_one_line(name) or len(name) > 100:
            raise InvalidRequest(["name: must be one line of at most 100 characters"])
        now = self._store.now()
        id_, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"{PREFIX}{id_}_{secret}"
        expires = now + lifetime if lifetime else None
        key = ApiKey(id=id_, name=name, hash=_hash(text), grant=grant, created_at=now, expires_at=expires)
        if not self._store.add_key(key):
            raise InvalidRequest([f"name: there is a key called {name} already; revoke it first"])
        return text, key

    def list_all(self) -> list[ApiKey]:
        """Return all keys, the oldest first."""
        return self._store.list_keys()

    def revoke(self, id_: str) -> bool:
        """Revoke a key; return False if there is no such key, or if it is revoked already."""
        return self._store.revoke_key(id_, self._store.now())

    def authenticate(self, text: str) -> Caller:
        """Return the caller who has this key.

        Raises:
            NotAuthenticated: The key is unknown, expired or revoked.
            StoreUnavailable: The store does not answer.
        """
        parts = text.split("_", 2)
        key = self._store.find_key(parts[1], _LOOKUP_TIMEOUT_SECONDS) if len(parts) == 3 else None
        is_match = hmac.compare_digest(_hash(text), key.hash if key else _hash(""))
        if key is None or not is_match or not key.is_valid(now := self._store.now()):
            raise NotAuthenticated("the key is not valid: it is unknown, expired or revoked")
        self._record_use(key, now)
        return Caller(f"key:{key.name}:{key.id}", (key.grant,))

    def _record_use(self, key: ApiKey, now: datetime) -> None:
        """Store when the key was last used, at most once a minute.

        A store that can be read but not written, as on a full disk, does not stop the request.
        """
        for last in (key.last_used_at, self._use_recorded_at.get(key.id)):
            if last is not None and last <= now < last + _RECORD_USE_EVERY:
                return
        self._use_recorded_at[key.id] = now
        try:
            self._store.record_key_use(key.id, now)
        except StoreUnavailable as error:
            logger.warning("the last use of the key %s cannot be stored: %s", key.id, error)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
