"""Create, list, revoke and check API keys.

A key is `sp_<id>_<secret>`. The secret has 256 random bits, so its SHA-256 reveals nothing, and a slow
hash would only cost the server time.
"""

import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from app.clock import steady_seconds
from app.errors import InvalidRequest, NotAuthenticated, StoreUnavailable
from app.models.api_key import ApiKey
from app.models.caller import Caller, Grant
from app.models.rules import is_one_line
from app.store.keys import KeyStore

logger = logging.getLogger(__name__)

PREFIX = "sp_"
_LOOKUP_TIMEOUT_SECONDS = 1.0  # for which a made-up key may hold a thread while the store is unavailable
_RECORD_USE_EVERY = timedelta(minutes=1)
_TRUSTED_SECONDS = 0.8  # after the store was asked for a key; less than the second that revocation may take
_MAX_TRUSTED = 10_000


class ApiKeys:
    """The API keys in the store. Every process refuses a revoked key within a second. Thread-safe."""

    def __init__(self, store: KeyStore, clock: Callable[[], float] = steady_seconds) -> None:
        """Use the keys in `store`. `clock`: seconds of a clock that is never set."""
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        # The keys that were read a moment ago, each with the time before the read, by the hash of the key's
        # text. A text that is no valid key never gets here.
        self._trusted: dict[str, tuple[ApiKey, float]] = {}
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
        """Revoke a key, in this process at once; return False if it does not exist or is revoked already."""
        is_revoked = self._store.revoke_key(id_, self._store.now())
        with self._lock:
            self._trusted.clear()
        return is_revoked

    def authenticate(self, text: str) -> Caller:
        """Return the caller who has this key.

        Raises:
            NotAuthenticated: The key is unknown, expired or revoked.
            StoreUnavailable: The store does not answer.
        """
        hash_ = _hash(text)
        key = self._find_trusted(hash_) or self._find_key(text, hash_)
        if key is None or not key.is_valid(now := self._store.now()):
            raise NotAuthenticated("the key is not valid: it is unknown, expired or revoked")
        self._record_use(key, now)
        return Caller(f"key:{key.name}:{key.id}", (key.grant,))

    def _find_trusted(self, hash_: str) -> ApiKey | None:
        """Return the key with this hash, if the store was asked for it a moment ago."""
        with self._lock:
            key, asked_at = self._trusted.get(hash_, (None, 0.0))
        return key if self._clock() - asked_at < _TRUSTED_SECONDS else None

    def _find_key(self, text: str, hash_: str) -> ApiKey | None:
        """Return the key in the store that has this text, and trust it for a moment."""
        parts, asked_at = text.split("_", 2), self._clock()
        key = self._store.find_key(parts[1], _LOOKUP_TIMEOUT_SECONDS) if len(parts) == 3 else None
        if not hmac.compare_digest(hash_, key.hash if key else _hash("")) or key is None:
            return None
        with self._lock:
            if len(self._trusted) >= _MAX_TRUSTED:
                self._trusted.clear()
            self._trusted[hash_] = key, asked_at
        return key

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
