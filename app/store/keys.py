"""The API keys in a store."""

from datetime import datetime
from typing import Protocol

from app.models.api_key import ApiKey
from app.store.clock import StoreClock


class KeyStore(StoreClock, Protocol):
    """A store of API keys.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def add_key(self, key: ApiKey) -> bool:
        """Add a key; return False if another key with the same name is valid when the key is created."""

    def find_key(self, id_: str, within: float | None = None) -> ApiKey | None:
        """Return the key with that id, even a revoked or expired one.

        Args:
            id_: The id of the key.
            within: Seconds that the search may take, instead of the configured time.
        """

    def list_keys(self) -> list[ApiKey]:
        """Return all keys, the oldest first."""

    def revoke_key(self, id_: str, at: datetime) -> bool:
        """Revoke a key; return False if there is no such key, or if the key is revoked already."""

    def record_key_use(self, id_: str, at: datetime) -> None:
        """Store when the key was last used."""
