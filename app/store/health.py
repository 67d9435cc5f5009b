"""The reports of processes in a store, and the numbers of tasks and messages in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.store.clock import StoreClock


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """Report of one process to the others of its host.

    Attributes:
        name: The name of the process, which no other process has.
        host: The host of the process.
        at: When the report was written, by the store's clock.
        figures: The content, which can be written as JSON.
    """

    name: str
    host: str
    at: datetime
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DueMessages:
    """The notifications of one method that are due: their number, and since when the oldest one is."""

    count: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """Backlog of a store: the open reservations, due messages and dead letters.

    Attributes:
        reservations: The number of open reservations.
        oldest_reservation_at: When the oldest of them was made.
        due: The notifications that are due, by method.
        dead: The number of dead letters.
        newest_dead_at: When the notification was created that became the newest dead letter.
    """

    reservations: int = 0
    oldest_reservation_at: datetime | None = None
    due: Mapping[str, DueMessages] = field(default_factory=dict)
    dead: int = 0
    newest_dead_at: datetime | None = None


class HealthStore(StoreClock, Protocol):
    """A store of reports, and of the numbers that operators watch.

    Every method raises StoreUnavailable if the database does not answer.
    """

    def write_report(self, report: ProcessReport, within: float) -> None:
        """Write a report in place of the last one of the same name; delete reports of a day ago.

        A store that accepts a report accepts tasks, too: a database without space is refused as well.

        Args:
            report: The report.
            within: Seconds that the write may take.
        """

    def list_reports(self, host: str, since: datetime) -> list[ProcessReport]:
        """Return the reports of a host that were written since `since`, by name."""

    def delete_report(self, name: str) -> None:
        """Delete the report of a process that is about to end."""

    def measure_backlog(self, now: datetime) -> Backlog:
        """Return the backlog at `now`, a time by the store's clock."""

    def count_tasks(self) -> dict[str, int]:
        """Return how many tasks are in each state; the state of a task without a job is `none`.

        This reads one entry of an index for each task: call it rarely.
        """

    def count_notifications(self) -> dict[tuple[str, str], int]:
        """Return how many notifications there are by method and status, without those that were sent.

        The sent ones, which may be millions, are never read.
        """
