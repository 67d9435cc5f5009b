"""Makes the tokens that slurmrestd asks for: JWT, HS256 over the cluster's key."""

import time
from dataclasses import dataclass, field

import jwt


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Makes tokens for any user; a token is never logged and never stored."""

    key: bytes = field(repr=False)
    lifetime: int  # seconds

    def headers(self, username: str) -> dict[str, str]:
        """Both headers; older servers refuse the token alone."""
        now = int(time.time())
        claims = {"iat": now, "exp": now + self.lifetime, "sun": username}
        token = jwt.encode(claims, self.key, algorithm="HS256")
        return {"X-SLURM-USER-NAME": username, "X-SLURM-USER-TOKEN": token}
