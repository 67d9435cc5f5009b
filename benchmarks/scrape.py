"""Measure the cost of a scrape of `GET /metrics`, with few records and with many.

    python -m benchmarks.scrape [--mongodb mongodb://…] [--records 1000000]

Fills a store, and scrapes a service in this process. A scrape usually finds the counts of tasks in the store.
They are counted anew after five seconds, or after 500 times as long as a count takes. The share of the time
is that of scrapes every five seconds, with these counts, on one processor: so many fewer submissions are
possible beside them. The last column compares a scrape with a submission.
"""

import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from flask import Flask

from app.lifecycle.collect_metrics import COUNT_FACTOR, MIN_COUNT_SECONDS
from app.store.mongo import connect
from benchmarks.command import Store, list_stores, make_parser
from benchmarks.fill import fill_store
from benchmarks.measuring import format_table, seconds_of
from benchmarks.service import store_settings
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_task
from tests.support.web import make_app, post, settings_with_sqlite

SCRAPE_EVERY = 5.0  # seconds
ROUNDS = 30


def measure(store: Store, folder: Path, records: int) -> list[str | float | int]:
    """Return the row of the table for one store with so many records."""
    fill_store(store, folder, (), ended=records)
    slurm: Any = FakeSlurm()
    app = make_app(settings_with_sqlite(folder / "unused", **store_settings(store, folder)), slurm)
    services = app.extensions["slurm_proxy"]
    try:
        services.monitor.run_cycle(services.store.now())
        count = statistics.median(seconds_of(lambda: count_all(app)) for _ in range(3))
        scrape(app)
        scraped = statistics.median(seconds_of(lambda: scrape(app)) for _ in range(ROUNDS))
        submitted = statistics.median(seconds_of(lambda: submit(app)) for _ in range(ROUNDS))
    finally:
        services.store.close()
    share = scraped / SCRAPE_EVERY + count / max(MIN_COUNT_SECONDS, COUNT_FACTOR * count)
    return [
        store.name,
        records,
        f"{1000 * scraped:.1f}",
        f"{1000 * count:.1f}",
        f"{100 * share:.2f} %",
        f"{scraped / submitted:.1f}",
    ]


def count_all(app: Flask) -> None:
    """Count what a scrape counts when the last counts are too old."""
    store = app.extensions["slurm_proxy"].store
    store.count_tasks()
    store.count_notifications()


def scrape(app: Flask) -> None:
    """Scrape once."""
    assert app.test_client().get("/metrics").status_code == 200


def submit(app: Flask) -> None:
    """Submit one task, on a cluster in memory."""
    assert post(app.test_client(), "/submit", {"task": make_task()}).status_code == 200


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="the larger number of records")
    options = parser.parse_args(arguments)
    rows = []
    for store in list_stores(options):
        for records in (1_000, options.records):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "service"
                rows.append(measure(store, folder, records))
                if store.mongodb:
                    with closing(connect(store.mongodb, 60)) as client:
                        client.drop_database(store_settings(store, folder)["MONGODB_MONITOR_DB"])
    columns = ("store", "records", "scrape (ms)", "count (ms)", "share of the time", "scrape / submission")
    print(format_table(columns, rows))


if __name__ == "__main__":
    main()
