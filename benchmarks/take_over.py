"""Measures how long the first start takes on a MongoDB with many documents of the older server.

python -m benchmarks.take_over --mongodb mongodb://… [--documents N]

One document in fifty is of a job that has not ended. The database is dropped afterwards.
"""

import argparse
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from app.store.mongo import MongoStore, connect
from tests.support.tasks import make_email, make_task

_BATCH_SIZE = 10_000
_RUNNING_EACH = 50


def _older_document(number: int, now: datetime) -> dict[str, Any]:
    task = make_task(notification=make_email())
    return {
        "slurm_username": task["username"],
        "slurm_job_id": number + 1,
        "slurm_job_state": "RUNNING" if number % _RUNNING_EACH == 0 else "COMPLETED",
        "task": task,
        "created_at": now - timedelta(seconds=number),
        "updated_at": None,
    }


def _seconds_of_start(uri: str, database: str) -> float:
    store = MongoStore(connect(uri, 30), database, "jobs")
    began = time.monotonic()
    store.prepare()
    seconds = time.monotonic() - began
    store.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mongodb", required=True)
    parser.add_argument("--documents", type=int, default=100_000)
    options = parser.parse_args()
    client, database = connect(options.mongodb, 60), f"benchmark_{secrets.token_hex(8)}"
    now = datetime.now(UTC).replace(tzinfo=None)
    try:
        for first in range(0, options.documents, _BATCH_SIZE):
            numbers = range(first, min(first + _BATCH_SIZE, options.documents))
            client[database]["jobs"].insert_many([_older_document(number, now) for number in numbers])
        starts = [_seconds_of_start(options.mongodb, database) for _ in range(2)]
        print(f"{options.documents} documents: first start {starts[0]:.1f} s, second start {starts[1]:.2f} s")
    finally:
        client.drop_database(database)
        client.close()


if __name__ == "__main__":
    main()
