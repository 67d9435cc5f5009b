"""Log many events of one kind in one line."""

import logging
import threading
import time

_INTERVAL = 60.0  # seconds


class EventCounter:
    """Counts events, and logs their number with the first one and at most once a minute.

    Clients can cause any number of these events, so that a line for each would fill the disk.
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        """Log to `logger`. `message` has a %d for the number of events."""
        self._logger = logger
        self._message = message
        self._lock = threading.Lock()
        self._count = 0
        self._logged = -_INTERVAL

    def add(self) -> None:
        """Count one event."""
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if now - self._logged < _INTERVAL:
                return
            count, self._count, self._logged = self._count, 0, now
        self._logger.warning(self._message, count)
