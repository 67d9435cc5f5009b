"""An API key as the store keeps it."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from app.models.caller import Grant
from app.models.job import Utc


class ApiKey(BaseModel):
    """A key that was created. Only its hash is stored, not the key itself."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    hash: str  # SHA-256, in hexadecimal
    grant: Grant
    created_at: Utc
    expires_at: Utc | None = None
    last_used_at: Utc | None = None  # to the minute
    revoked_at: Utc | None = None

    def is_valid(self, at: datetime) -> bool:
        """Return whether the key is neither revoked nor expired at that time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)
