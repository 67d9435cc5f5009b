"""Measures the average size of a job record, from the hello-world task to its announced end.

    python benchmarks/record_size.py [mongodb://…]

Prints bytes a record on disk in SQLite, and as a document in MongoDB where its address is given.
"""

import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from app.job_state import JobState
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import Change, NotificationStatus, TaskRecord
from app.senders import find_channel
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.notification_queue import Outcome
from app.store.sqlite import SqliteStore

RECORDS = 500


def hello_world(number: int) -> dict[str, Any]:
    home = "/home/areynolds"
    folder = f"{home}/slurm-proxy-test"
    email = {
        "sender": "username@gmail.com",
        "recipient": "username@gmail.com",
        "subject": "hello-world test job finished!",
        "body": "hello!",
    }
    return {
        "uuid": f"123e4567-e89b-12d3-a456-{number:012d}",
        "username": "areynolds",
        "cwd": home,
        "cmd": "echo",
        "params": ["-e", '"hello, world! (sent job $SLURM_JOB_ID to $SLURM_JOB_USER at `date`)"'],
        "notification": {"methods": ["email"], "params": {"email": email}},
        "slurm": {
            "job_name": "slurm-proxy-test.generic",
            "time": 30,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": 1,
            "mem": 1000,
            "partition": "hpcz-test",
            "output": "slurm-proxy-test.generic.output.txt",
            "error": "slurm-proxy-test.generic.error.txt",
        },
        "name": "generic",
        "dirs": {
            "parent": folder,
            "input": f"{folder}/input",
            "output": f"{folder}/output",
            "error": f"{folder}/error",
        },
    }


def live_through(store: TaskStore, number: int) -> None:
    """One record from its reservation to the message that went out."""
    now = datetime.now(UTC)
    task = hello_world(number)
    record = TaskRecord(task=task, slurm_username="areynolds", created_at=now, updated_at=now)
    store.add_record(record)
    store.accept_job(record, number, JobState.PENDING, now)
    job = SlurmJob(
        job_id=number,
        username="areynolds",
        job_state=JobState.COMPLETED,
        exit_code=0,
        name="slurm-proxy-test.generic",
        partition="hpcz-test",
        nodes="node-0042",
        cpus=1,
        memory_mb=1000,
        time_limit_minutes=1800,
        submit_time=now,
        start_time=now,
        end_time=now + timedelta(seconds=2),
        working_directory="/home/areynolds",
        standard_output=task["dirs"]["output"] + "/" + task["slurm"]["output"],
        comment=f"slurm-proxy:{record.uuid}",
    )
    due = Planner({}, ["email"], find_channel).plan_events(record, job, now).notifications
    fence = store.acquire_lease("me", now, now + timedelta(minutes=1))
    assert fence is not None
    store.apply_changes([Change(record.uuid, JobState.PENDING, JobState.COMPLETED, now, job, due)], fence)
    claim = store.claim("email", "me", now + timedelta(seconds=1), now + timedelta(minutes=1))
    assert claim is not None
    store.settle(claim, Outcome(NotificationStatus.SENT, now))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite3"
        store = SqliteStore(path)
        store.prepare()
        for number in range(RECORDS):
            live_through(store, number)
        store.close()
        print(f"SQLite: {path.stat().st_size / RECORDS:.0f} bytes a record, indexes included")
    if len(sys.argv) > 1:
        client = connect(sys.argv[1], 5)
        name = f"record_size_{os.getpid()}"
        mongo = MongoStore(client, name, "jobs")
        mongo.prepare()
        for number in range(RECORDS):
            live_through(mongo, number)
        statistics = client[name].command("collStats", "jobs")
        client.drop_database(name)
        mongo.close()
        index_bytes = statistics["totalIndexSize"] / RECORDS
        print(f"MongoDB: {statistics['avgObjSize']} bytes a document, {index_bytes:.0f} more in its indexes")


if __name__ == "__main__":
    main()
