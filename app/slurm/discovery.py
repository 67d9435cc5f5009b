"""Discover the API version of slurmrestd."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from app.errors import NoCommonVersion
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest

logger = logging.getLogger(__name__)

Exchange = Callable[[SlurmRequest], Reply]  # makes a request


class Discovery:
    """Discovery of the dialect of one slurmrestd, for all sessions with it. Thread-safe.

    All threads that need the dialect at the same time share the requests of one of them, and its error.

    Attributes:
        known: The dialect; None if it was never discovered, or is gone.
    """

    def __init__(self, host: str) -> None:
        """Begin without a dialect. `host`: the address of slurmrestd, for the log."""
        self.known: Dialect | None = None
        self._host = host
        self._lock = threading.Lock()
        self._under_way: Future[Dialect] | None = None

    def find(self, exchange: Exchange) -> Dialect:
        """Return the dialect; if it is not known, discover it with requests that `exchange` makes.

        Raises:
            NoCommonVersion: slurmrestd offers no version that this service supports.
        """
        with self._lock:
            if self.known is not None:
                return self.known
            is_first = self._under_way is None
            found = self._under_way = self._under_way or Future()
        if is_first:
            self._discover(found, exchange)
        return found.result()

    def _discover(self, found: "Future[Dialect]", exchange: Exchange) -> None:
        try:
            dialect = find_dialect(exchange)
        except BaseException as error:
            self._finish(None)
            found.set_exception(error)
        else:
            logger.info("slurmrestd at %s: %s", self._host, dialect.api)
            self._finish(dialect)
            found.set_result(dialect)

    def _finish(self, dialect: Dialect | None) -> None:
        with self._lock:
            self.known, self._under_way = dialect, None


def find_dialect(exchange: Exchange) -> Dialect:
    """Return the newest dialect that slurmrestd and this service know.

    Raises:
        NoCommonVersion: slurmrestd offers no version that this service supports.
    """
    for api in SUPPORTED_API_VERSIONS:
        if exchange(SlurmRequest("GET", f"/slurm/{api}/ping")).status != 404:
            return Dialect(api)
    reply = exchange(SlurmRequest("GET", "/openapi/v3"))
    paths = reply.body.get("paths")
    listed = [path for path in paths if path.startswith("/slurm/v")] if isinstance(paths, dict) else []
    offered = sorted({path.split("/")[2] for path in listed})
    raise NoCommonVersion(
        f"slurmrestd offers {', '.join(offered) or 'no version'}; "
        f"slurm-proxy supports {SUPPORTED_API_VERSIONS[-1]} to {SUPPORTED_API_VERSIONS[0]}",
        offered,
    )
