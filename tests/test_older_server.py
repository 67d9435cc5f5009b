"""Records of the service that this one replaces, in its exact form, on a real MongoDB."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from pymongo.collection import Collection

from app import create_app
from app.constants import read_settings
from app.job_state import JobState
from app.models.record import utc_now
from app.services import Services, build_services
from app.store.mongo import connect
from tests.contract import Contract
from tests.fakes import FakeSlurm
from tests.real.mongod import Mongod
from tests.tasks import make_email, make_task, new_uuid

pytestmark = pytest.mark.real

NAIVE_NOW = utc_now().replace(tzinfo=None)
YEARS_AGO = NAIVE_NOW - timedelta(days=900)


def older_document(job_id: object, state: object = "RUNNING", **fields: Any) -> dict[str, Any]:
    """Return a document as the older server inserted it."""
    task = fields.pop("task", None) or make_task(notification=make_email())
    document = {
        "slurm_username": task["username"],
        "slurm_job_id": job_id,
        "slurm_job_state": state,
        "task": task,
        "created_at": NAIVE_NOW,
        "updated_at": None,
    }
    return {**document, **fields}


class Deployment:
    """One database of the older server, and servers that take it over."""

    def __init__(self, uri: str) -> None:
        self.database = f"test_{new_uuid()}"
        self.uri = uri
        self.client = connect(uri, 30)
        self.tasks: Collection[dict[str, Any]] = self.client[self.database]["jobs"]
        self.slurm: Any = FakeSlurm()
        self._started: list[Services] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0IGtleSBmb3IgdGVzdHM=",
            "MONGODB_URI": self.uri,
            "MONGODB_MONITOR_DB": self.database,
            "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
        }

    def start(self) -> Flask:
        """Start a server, without its threads."""
        app = create_app(self.settings)
        services = build_services(read_settings(self.settings), self.slurm)
        services.store.prepare()
        app.extensions["slurm_proxy"].store.close()
        app.extensions["slurm_proxy"] = services
        self._started.append(services)
        return app

    def close(self) -> None:
        for services in self._started:
            services.stop()
        self.client.drop_database(self.database)
        self.client.close()


@pytest.fixture
def deployment(mongod: Mongod) -> Iterator[Deployment]:
    deployment = Deployment(mongod.uri)
    yield deployment
    deployment.close()


def get(app: Flask, path: str) -> Any:
    """Return the body of an answer that is 200 and as the OpenAPI document has it."""
    client = app.test_client()
    answer = client.get(path)
    Contract(client.get("/openapi.json").json or {}).check("GET", path.partition("?")[0], answer)
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.parametrize("updated_at", [None, NAIVE_NOW + timedelta(seconds=5)])
@pytest.mark.parametrize("job_id", [4711, "4711"])
def test_an_older_record_is_readable_by_both_gets(
    deployment: Deployment, job_id: object, updated_at: datetime | None
) -> None:
    document = older_document(job_id, updated_at=updated_at)
    deployment.tasks.insert_one(document)
    app = deployment.start()
    task = document["task"]
    shown = get(app, f"/monitor/task_uuid/{task['uuid']}")["monitor"]
    assert shown == get(app, "/monitor/slurm_job_id/4711")["monitor"]
    assert shown == {
        "slurm_username": task["username"],
        "slurm_job_id": 4711,
        "slurm_job_state": "RUNNING",
        "task": task,
        "created_at": NAIVE_NOW.isoformat() + "+00:00",
        "updated_at": (updated_at or NAIVE_NOW).isoformat() + "+00:00",
        "notifications": [],
    }


@pytest.mark.parametrize("state", ["completed", "Done", "", "SUBMITTED", None, ["RUNNING"], 3])
def test_an_older_record_with_a_state_that_slurm_never_says_is_readable_as_unknown(
    deployment: Deployment, state: object
) -> None:
    document = older_document(4711, state)
    deployment.tasks.insert_one(document)
    shown = get(deployment.start(), f"/monitor/task_uuid/{document['task']['uuid']}")["monitor"]
    assert shown["slurm_job_state"] == JobState.UNKNOWN


@pytest.mark.parametrize("job_id", [None, "", "12_3", "abc", -1, True, 2**40])
def test_an_older_record_without_a_job_id_is_readable_by_its_uuid(
    deployment: Deployment, job_id: object
) -> None:
    document = older_document(job_id)
    deployment.tasks.insert_one(document)
    app = deployment.start()
    shown = get(app, f"/monitor/task_uuid/{document['task']['uuid']}")["monitor"]
    assert shown["slurm_job_id"] is None


def test_an_older_record_with_a_bare_task_is_readable(deployment: Deployment) -> None:
    task = {"uuid": new_uuid(), "username": "alice"}
    deployment.tasks.insert_one(older_document(4711, "COMPLETED", task=task))
    shown = get(deployment.start(), "/monitor/slurm_job_id/4711")
    assert shown["monitor"]["task"] == task
    assert shown["slurm"]["job_state"] == "COMPLETED"
