"""One request to slurmrestd: the path, the user, the body and the deadline."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

_API = re.compile(r"^/(slurm|slurmdb)/v[0-9.]+/")
_JOB = re.compile(r"/[0-9_]+(?=/|$)")

Query = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class SlurmRequest:
    """One HTTP request to slurmrestd.

    Attributes:
        method: The HTTP method.
        path: The whole path for a Connection; a Session adds "/slurm/<version>/" in front.
        user: The user to act as; a Session puts the service's own user where it is empty.
        query: Names and values of the query, in order; a name may occur several times.
        body: The body, sent as JSON; None for a request without one.
        expires: The end of the token: from then on Slurm does not accept the request, however late it
            arrives. None for the usual lifetime.
        timeout: Seconds that slurmrestd has to answer; None for the configured time.
        max_bytes: The size limit of the answer; None for the usual one.
    """

    method: str
    path: str
    user: str = ""
    query: Query = ()
    body: object = None
    expires: datetime | None = None
    timeout: float | None = None
    max_bytes: int | None = None

    @property
    def target(self) -> str:
        """Return the path with the query."""
        return f"{self.path}?{_encode(self.query)}" if self.query else self.path

    @property
    def kind(self) -> str:
        """Return the method and the path without API version and job id, such as "GET jobs/state"."""
        path = _API.sub(lambda found: "slurmdb/" if found[1] == "slurmdb" else "", self.path)
        return f"{self.method} {_JOB.sub('', path)}"


def _encode(query: Query) -> str:
    """Return a query as it stands in a URL; numbers, which come by the thousand, need no escapes."""
    return "&".join(
        [f"{name}={value}" if isinstance(value, int) else urlencode([(name, value)]) for name, value in query]
    )
