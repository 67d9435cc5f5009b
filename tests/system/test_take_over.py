"""The take-over of a large database of the older server, and one that is killed in its middle."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.job_state import JobState
from app.models.record import utc_now
from app.services import Services
from app.store.mongo import MongoStore, connect
from tests.conftest import until
from tests.support.older_server import YEARS_AGO, Cycles, Deployment, older_document, two_with_one_uuid
from tests.support.real.mongod import Mongod
from tests.support.service import ROOT
from tests.support.tasks import make_email, make_task, new_uuid

pytestmark = pytest.mark.real

ENDED, BARE, RUNNING, PAIRS = 94_000, 2_000, 2_000, 1_000
_FINAL = [state.value for state in JobState if state.is_final]


@pytest.fixture
def deployment(mongod: Mongod) -> Iterator[Deployment]:
    deployment = Deployment(mongod.uri)
    yield deployment
    deployment.close()


def ended_documents(count: int) -> Iterator[dict[str, Any]]:
    task = make_task(notification=make_email())
    for number in range(count):
        yield older_document(
            number + 1 if number % 3 else str(number + 1),
            _FINAL[number % len(_FINAL)],
            task={**task, "uuid": new_uuid()},
            created_at=YEARS_AGO + timedelta(minutes=number),
            updated_at=None if number % 2 else YEARS_AGO + timedelta(minutes=number + 60),
        )


def bare_documents(first_id: int, count: int) -> Iterator[dict[str, Any]]:
    for number in range(first_id, first_id + count):
        task = {"uuid": new_uuid(), "username": "alice"}
        yield older_document(number, "Finished", task=task, created_at=YEARS_AGO)


def running_documents(first_id: int, count: int) -> Iterator[dict[str, Any]]:
    for number in range(first_id, first_id + count):
        yield older_document(number, ("RUNNING", "PENDING")[number % 2])


@pytest.mark.timed
def test_a_hundred_thousand_older_records_are_taken_over_in_seconds(deployment: Deployment) -> None:
    deployment.tasks.insert_many(ended_documents(ENDED))
    deployment.tasks.insert_many(bare_documents(ENDED + 1, BARE))
    first = ENDED + BARE + 1
    deployment.tasks.insert_many(running_documents(first, RUNNING))
    pairs = [two_with_one_uuid("COMPLETED", created_at=YEARS_AGO) for _ in range(PAIRS)]
    deployment.tasks.insert_many([document for pair in pairs for document in pair])
    for number in range(first, first + RUNNING):
        deployment.slurm.put(number, JobState.RUNNING)

    began = time.monotonic()
    app = deployment.start()
    seconds = time.monotonic() - began
    assert seconds < 60, "generous, for a machine that is busy with other tests"
    began = time.monotonic()
    deployment.start()
    assert time.monotonic() - began < 5

    services: Services = app.extensions["slurm_proxy"]
    uuids = deployment.tasks.distinct("task.uuid")
    assert len(uuids) == ENDED + BARE + RUNNING + PAIRS
    for begin in range(0, len(uuids), 2000):
        some = uuids[begin : begin + 2000]
        assert services.store.find_by_uuids(some).keys() == set(some)
    for number in range(1, first + RUNNING, 50):
        assert services.store.find_by_job_id(number) is not None
    client = app.test_client()
    for document in deployment.tasks.aggregate([{"$sample": {"size": 100}}]):
        by_id = client.get(f"/monitor/slurm_job_id/{document['slurm_job_id']}")
        by_uuid = client.get(f"/monitor/task_uuid/{document['task']['uuid']}")
        assert (by_id.status_code, by_uuid.status_code) == (200, 200)

    cycles = Cycles(app)
    cycles.run()
    for number in range(first, first + RUNNING):
        deployment.slurm.put(number, JobState.FAILED, end_time=utc_now())
    cycles.run()
    cycles.run(timedelta(minutes=15))
    cycles.run()
    assert deployment.tasks.count_documents({"is_open": True}) == 0
    assert deployment.tasks.count_documents({"notifications.0": {"$exists": True}}) == RUNNING
    running = {"slurm_job_id": {"$gte": first}, "notifications": {"$size": 1}}
    assert deployment.tasks.count_documents(running) == RUNNING


def test_a_take_over_that_is_killed_at_any_moment_is_completed_by_the_next_start(
    deployment: Deployment,
) -> None:
    pairs = [two_with_one_uuid() for _ in range(2_000)]
    documents = [document for pair in pairs for document in pair]
    deployment.tasks.insert_many([*documents, *ended_documents(20_000)])
    code = "import sys; from app.store.mongo import MongoStore, connect; print('begins', flush=True);"
    code += "MongoStore(connect(sys.argv[1], 30), sys.argv[2], 'jobs').prepare()"
    argv = [sys.executable, "-W", "ignore", "-c", code, deployment.uri, deployment.database]
    kills = 0
    for _ in range(8):
        with subprocess.Popen(argv, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begins\n"
            time.sleep(random.uniform(0.05, 0.8))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    deployment.start()
    assert_all_is_followed(deployment, pairs)


def assert_all_is_followed(
    deployment: Deployment, pairs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """Check that each document of a running job has a key, and that a uuid leads to the newer document."""
    running = {"slurm_job_state": "RUNNING"}
    assert deployment.tasks.count_documents({**running, "is_open": True}) == 2 * len(pairs)
    assert len(deployment.tasks.distinct("uuid", running)) == 2 * len(pairs)
    store = MongoStore(connect(deployment.uri, 30), deployment.database, "jobs")
    found = store.find_by_uuids([newer["task"]["uuid"] for _, newer in pairs])
    store.close()
    assert {record.slurm_job_id for record in found.values()} == {12}
    assert len(found) == len(pairs)


MOMENTS = 26  # before and after each command of a take-over, and some more


def test_a_take_over_that_is_killed_before_or_after_any_command_is_completed_by_the_next_start(
    deployment: Deployment,
) -> None:
    pairs = [two_with_one_uuid("RUNNING" if number % 2 else "COMPLETED") for number in range(550)]
    deployment.tasks.insert_many([document for pair in pairs for document in pair])
    before = list(deployment.tasks.find().sort("_id"))
    database = deployment.client[deployment.database]
    for number in range(MOMENTS):
        deployment.tasks.aggregate([{"$out": f"jobs_{number}"}])
    argv = [
        "-W",
        "ignore",
        "-m",
        "tests.support.killed_take_over",
        deployment.uri,
        deployment.database,
        str(MOMENTS),
    ]
    run = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, check=True)
    kills = run.stdout.splitlines().count("killed")
    assert run.stdout.splitlines() == ["killed"] * kills + ["done"] * (MOMENTS - kills)
    assert 10 <= kills < MOMENTS, "each moment of the take-over was one of them"

    for number in range(kills):
        store = MongoStore(connect(deployment.uri, 30), deployment.database, f"jobs_{number}")
        store.prepare()
        store.close()
        after = list(database[f"jobs_{number}"].find().sort("_id"))
        keys = [document["uuid"] for document in after if "uuid" in document]
        assert len(keys) == len(set(keys)) == len(pairs)
        for old, new in zip(before, after, strict=True):
            assert old.items() <= new.items()
            assert new.get("is_open", False) == (old["slurm_job_state"] == "RUNNING")


def test_a_take_over_that_is_interrupted_by_a_crash_of_mongodb_is_completed_by_the_next_start(
    replica_set: Mongod,
) -> None:
    deployment = Deployment(replica_set.uri)
    pairs = [two_with_one_uuid() for _ in range(5_000)]
    deployment.tasks.insert_many([document for pair in pairs for document in pair])
    for seconds in (0.2, 0.6):
        store = MongoStore(connect(deployment.uri, 2), deployment.database, "jobs")
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(store.prepare)
            time.sleep(seconds)
            replica_set.kill()
            assert isinstance(start.exception(60), StoreUnavailable | None)
        store.close()
        replica_set.start()
        until(lambda: deployment.client.admin.command("hello")["isWritablePrimary"], 30, "a primary")
    deployment.start()
    assert_all_is_followed(deployment, pairs)
    deployment.close()
