"""Measure the cost of waiting requests for others: /ping and POST /submit without and beside them.

    python -m benchmarks.waiting [--waiting 200] [--number 200] [--mongodb mongodb://…]

Starts gunicorn with one worker of 8 threads on the stand-in for Slurm. Each round measures both requests
without waiting clients and then beside them, so that the ratios come from the same minute.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from app.store.mongo import connect
from tests.conftest import until
from tests.support.tasks import new_uuid
from tests.support.waiting import COMMANDS, CountingCluster, WaitingServer

ROUNDS = 4


def measure(server: WaitingServer, number: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of so many pings, and of so many submissions."""
    pings = [1000 * server.measure_seconds("GET", "/ping") for _ in range(number)]
    submissions = []
    for _ in range(number):
        began = time.perf_counter()
        server.submit()
        submissions.append(1000 * (time.perf_counter() - began))
    return pings, submissions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=200, help="how many clients wait")
    parser.add_argument("--number", type=int, default=200, help="how many requests of each kind are measured")
    parser.add_argument("--mongodb", help="the address of a MongoDB; without it SQLite")
    options = parser.parse_args()
    cluster = CountingCluster()
    settings = {"GUNICORN_THREADS": "8", "LIMIT_CONNECTIONS": str(2 * options.waiting + 64)}
    if options.mongodb:
        settings |= {"MONGODB_URI": options.mongodb, "MONGODB_MONITOR_DB": f"benchmark-{new_uuid()}"}
    alone: tuple[list[float], list[float]] = ([], [])
    beside: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as stack:
        if options.mongodb:
            client = stack.enter_context(connect(options.mongodb, 5))
            stack.callback(client.drop_database, settings["MONGODB_MONITOR_DB"])
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = cluster.start()
        stack.callback(cluster.stop)
        server = WaitingServer(Path(folder), COMMANDS["gunicorn"], url, **settings)
        stack.callback(server.kill)
        task = server.submit()
        measure(server, 10)
        for _ in range(ROUNDS):
            until(lambda: server.count_connections() == 0, 60, "the end of the requests of the round before")
            for found, part in zip(alone, measure(server, options.number // ROUNDS), strict=True):
                found += part
            with server.waiting(task, options.waiting) as waiters:
                until(lambda: server.count_threads() > options.waiting, 60, "the waiting requests")
                time.sleep(1)
                for found, part in zip(beside, measure(server, options.number // ROUNDS), strict=True):
                    found += part
                answered = sum(waiter.has_answer() for waiter in waiters)
                assert answered == 0, f"{answered} of the requests did not wait"
    store = "MongoDB" if options.mongodb else "SQLite"
    print(f"{store}, {options.waiting} waiting requests on one process of 8 threads, milliseconds:")
    for name, without, with_ in zip(("/ping", "/submit"), alone, beside, strict=True):
        before, after = statistics.median(without), statistics.median(with_)
        highest = statistics.quantiles(with_, n=20)[-1]
        print(
            f"{name}: median {before:.1f} alone, {after:.1f} beside them (ratio {after / before:.2f},"
            f" 95th percentile {highest:.1f})"
        )


if __name__ == "__main__":
    main()
