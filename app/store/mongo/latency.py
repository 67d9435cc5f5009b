"""Measure how long the commands to MongoDB take."""

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from app.metrics import STORE_OPERATION_SECONDS, Metrics

_OPERATIONS = {
    **dict.fromkeys(("find", "aggregate", "count", "distinct", "getMore"), "read"),
    **dict.fromkeys(("insert", "update", "delete", "findAndModify"), "write"),
}


class LatencyListener(CommandListener):
    """Listener of the driver that counts the durations of reads and writes."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`."""
        self._metrics = metrics

    def started(self, event: CommandStartedEvent) -> None:
        """Do nothing: only the end of a command is of interest."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Count the duration."""
        self._observe(event)

    def failed(self, event: CommandFailedEvent) -> None:
        """Count the duration until the failure."""
        self._observe(event)

    def _observe(self, event: CommandSucceededEvent | CommandFailedEvent) -> None:
        if (operation := _OPERATIONS.get(event.command_name)) is not None:
            self._metrics.observe(STORE_OPERATION_SECONDS, event.duration_micros / 1e6, operation)
