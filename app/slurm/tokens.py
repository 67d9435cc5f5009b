"""Makes the tokens that slurmrestd asks for: JWT, HS256 over the cluster's key."""

import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime

import jwt
from jwt.warnings import InsecureKeyLengthWarning

# The cluster's administrator chooses the length of the key.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Makes tokens for any user; a token is never logged and never stored."""

    key: bytes = field(repr=False)
    lifetime: int  # seconds

    def headers(self, username: str, expires: datetime | None = None) -> dict[str, str]:
        """Both headers; older servers refuse the token alone. It is good until `expires`, or its lifetime."""
        now = int(time.time())
        end = int(expires.timestamp()) if expires else now + self.lifetime
        claims = {"iat": now, "exp": end, "sun": username}
        token = jwt.encode(claims, self.key, algorithm="HS256")
        return {"X-SLURM-USER-NAME": username, "X-SLURM-USER-TOKEN": token}
