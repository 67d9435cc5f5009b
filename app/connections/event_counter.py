"""Count events of one kind, and log many of them in one line."""

import logging
import threading
import time

_LOG_INTERVAL = 60.0  # seconds


class EventCounter:
    """A counter that logs the number of events with the first one and at most once a minute.

    Clients can cause any number of these events. A line for each of them would fill the disk.
    """

    def __init__(self, logger: logging.Logger, message: str) -> None:
        """Create a counter that logs to `logger`; `message` has a %d for the number of events."""
        self._logger = logger
        self._message = message
        self._lock = threading.Lock()
        self._count = 0
        self._logged = -_LOG_INTERVAL

    def add(self) -> None:
        """Count one event."""
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if now - self._logged < _LOG_INTERVAL:
                return
            count, self._count, self._logged = self._count, 0, now
        self._logger.warning(self._message, count)
