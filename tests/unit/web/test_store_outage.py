"""Requests while the store does not answer: here, another write does not end."""

from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.store.breaker import allow_refusal
from tests.support.fakes import FakeSlurm
from tests.support.tasks import make_task
from tests.support.web import check_error, post, prepared_app

REFUSED = "the store has not been answering"


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


@pytest.fixture
def app(tmp_path: Path, slurm: FakeSlurm) -> Iterator[Flask]:
    with prepared_app(tmp_path / "store.sqlite3", slurm, SQLITE_TIMEOUT_SECONDS=0.2) as app:
        yield app


def submit(app: Flask, task: dict[str, Any] | None = None) -> Any:
    return post(app.test_client(), "/submit", {"task": task or make_task()})


def find_store_fault(app: Flask) -> str:
    """The store's fault, as GET /readyz shows it."""
    parts = app.test_client().get("/readyz").get_json()["parts"]
    return str(parts["store"].get("reason"))


def test_requests_are_refused_after_one_has_timed_out(app: Flask) -> None:
    task = make_task()
    assert submit(app, task).status_code == 200
    with app.extensions["slurm_proxy"].store.writing():
        check_error(submit(app), 503, "store_unavailable")
        assert REFUSED in find_store_fault(app)
        assert app.test_client().get("/ping").text == "pong"
        found = app.test_client().get(f"/monitor/task_uuid/{task['uuid']}")
        assert found.status_code == 200, "SQLite can be read meanwhile"
    assert submit(app).status_code == 200


def test_the_job_of_a_reservation_is_recorded_after_other_requests_were_refused(
    app: Flask, slurm: FakeSlurm, caplog: pytest.LogCaptureFixture
) -> None:
    """The outage begins while Slurm takes the job."""
    store = app.extensions["slurm_proxy"].store
    with ExitStack() as outage:

        def wait_for_store() -> None:
            allow_refusal()
            outage.enter_context(store._breaker.guarding())

        def begin_outage(_: int) -> None:
            outage.enter_context(store.writing())
            Context().run(submit, app)  # waits in vain
            Context().run(wait_for_store)

        slurm.on_submit = begin_outage
        answer = submit(app, task := make_task())
        assert REFUSED in find_store_fault(app)
    assert answer.status_code == 200
    assert "completed as soon as" in answer.json["warnings"][0]
    (tried,) = [line for line in caplog.messages if "is not recorded yet" in line]
    assert REFUSED not in tried
    app.extensions["slurm_proxy"].monitor._reservations.record_unrecorded_jobs()
    assert store.find_by_uuids([task["uuid"]])[task["uuid"]].slurm_job_id == answer.json["slurm_job_id"]
