"""Mint the tokens of requests to slurmrestd: JSON web tokens (JWT) with HS256 over the cluster's key.

Each request to slurmrestd has a new token (`connection.py`). The claims are `sun` (the user to act as), `iat`
and `exp`. slurmrestd passes the token on to slurmctld, which checks it. A token of the user is enough for all
that the user may do.

- The key is the setting SLURM_JWT_HS256_KEY_BASE64. Without it, the key is the file
  SLURM_JWT_HS256_KEY_PATH.
- The user is the task's for a submission or a cancellation. `POST /slurm/job/submit` names the user in its
  query. A request that names no user has a token of SLURM_REST_USERNAME, such as those of the poller.
- A token lasts SLURM_REST_JWT_EXPIRATION_TIME seconds, that of `POST /slurm/job/submit` too. The token of a
  task's submission ends when the submission may no longer become a job: after the longest time that its
  request can take, and SLURM_CLOCK_SKEW_SECONDS (`submission_life` in `app/services.py`). So a submission
  without an answer can be settled after that.
- If Slurm's clock cannot be read with an ordinary token, for whatever reason, one more attempt has a token of
  one day: the host's clock may be far behind (`app/lifecycle/clock_guard.py`).
"""

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
    """Mint of tokens for any user; a token is never logged and never stored.

    Attributes:
        key: the content of the file that `jwt_key` in slurm.conf names.
        lifetime: seconds until a token expires.
    """

    key: bytes = field(repr=False)
    lifetime: int

    def make_headers(self, username: str, expires: datetime | None = None) -> dict[str, str]:
        """Mint a token, and return the headers with the user and the token; 22.05 requires both.

        Args:
            username: The user to act as.
            expires: The end of the token, if it is not to have the usual lifetime.
        """
        now = int(time.time())
        end = int(expires.timestamp()) if expires else now + self.lifetime
        claims = {"iat": now, "exp": end, "sun": username}
        token = jwt.encode(claims, self.key, algorithm="HS256")
        return {"X-SLURM-USER-NAME": username, "X-SLURM-USER-TOKEN": token}
