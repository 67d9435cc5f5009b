"""End the requests that only read, as soon as slurmctld is known to be down.

slurmrestd would answer them 9 to 20 s after they began. A submission is not ended: slurmrestd tries to reach
slurmctld for 9 s, and its answer then shows for certain whether there is a job.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.slurm.request import SlurmRequest
from app.slurm.transport import Allowance


class PendingReads:
    """List of the GETs to slurmctld that one Connection has under way. Thread-safe."""

    def __init__(self) -> None:
        """Begin without a request."""
        self._lock = threading.Lock()
        self._allowances: set[Allowance] = set()

    @contextmanager
    def listing(self, request: SlurmRequest, allowance: Allowance) -> Iterator[None]:
        """List a request while it is under way, if it is a GET to slurmctld."""
        if request.method != "GET" or not request.path.startswith("/slurm/"):
            yield
            return
        with self._lock:
            self._allowances.add(allowance)
        try:
            yield
        finally:
            with self._lock:
                self._allowances.discard(allowance)

    def abort(self) -> None:
        """End the requests at once, as requests without an answer."""
        with self._lock:
            for allowance in self._allowances:
                allowance.abort()
