"""A database of the service that this one replaces, with documents in its exact form."""

from datetime import timedelta
from typing import Any

from flask import Flask
from pymongo.collection import Collection

from app.models.record import utc_now
from app.services import Services
from app.store.mongo import connect
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_email, make_task, new_uuid
from tests.support.web import KEY, make_app

NAIVE_NOW = utc_now().replace(tzinfo=None)  # when the tests were imported, which may be long ago
YEARS_AGO = NAIVE_NOW - timedelta(days=900)


def older_document(job_id: object, state: object = "RUNNING", **fields: Any) -> dict[str, Any]:
    """Return a document as the older server inserted it."""
    task = fields.pop("task", None) or make_task(notification=make_email())
    document = {
        "slurm_username": task["username"],
        "slurm_job_id": job_id,
        "slurm_job_state": state,
        "task": task,
        "created_at": utc_now().replace(tzinfo=None),
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
            "SLURM_JWT_HS256_KEY_BASE64": KEY,
            "MONGODB_URI": self.uri,
            "MONGODB_MONITOR_DB": self.database,
            "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
        }

    def start(self) -> Flask:
        """Start a server, without its threads."""
        app = make_app(self.settings, self.slurm)
        services: Services = app.extensions["slurm_proxy"]
        self._started.append(services)
        services.store.prepare()
        return app

    def close(self) -> None:
        for services in self._started:
            services.stop()
        self.client.drop_database(self.database)
        self.client.close()


def two_with_one_uuid(state: object = "RUNNING", **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two documents with the same uuid, the older one first, of jobs 11 and 12."""
    task = make_task(notification=make_email())
    newer = older_document(12, state, **{"task": task, **fields})
    created_at = newer["created_at"] - timedelta(minutes=5)
    return older_document("11", state, **{"task": task, **fields, "created_at": created_at}), newer


class Cycles:
    """The polling cycles of a server, at moments of the test's choosing."""

    def __init__(self, app: Flask) -> None:
        self._services: Services = app.extensions["slurm_proxy"]
        self._now = utc_now()

    def run(self, later: timedelta = timedelta(minutes=1)) -> None:
        self._now += later
        assert self._services.monitor.run_cycle(self._now)
