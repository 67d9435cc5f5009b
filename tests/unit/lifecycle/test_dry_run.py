"""A dry run answers what a submission would send, and changes nothing.

Its answers over HTTP are tested in `tests/unit/web/test_routes.py`.
"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    DuplicateUuid,
    IdempotencyKeyReused,
    SlurmAmbiguous,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
)
from app.lifecycle.submit import TaskSubmitter
from app.models.answers import DryRun
from app.models.caller import OPERATOR
from app.models.slurm_options import SlurmOptions
from app.slurm.client import SlurmClient
from app.slurm.dialect import SUPPORTED_API_VERSIONS
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.store.sqlite import SqliteStore
from tests.support.answers import body_of
from tests.support.lifecycle import Service, left_open
from tests.support.sbatch_options import EXAMPLES, STRUCTURED_ONLY
from tests.support.tasks import make_email, make_task
from tests.unit.slurm.test_slurm_answers import Wire, submitter_on


class RecordingWire(Wire):
    """Accepts every submission, and records what is sent to it."""

    def __init__(self, api: str) -> None:
        super().__init__(api, {"POST job/submit": b'{"job_id": 5, "errors": []}'})
        self.sent: list[SlurmRequest] = []

    def send(self, request: SlurmRequest) -> Reply:
        self.sent.append(request)
        return super().send(request)


def dry_run(submitter: TaskSubmitter, task: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    return body_of(submitter.dry_run(OPERATOR, {"task": task}, key))


def outcome(use_case: Callable[..., Any], task: dict[str, Any], key: str | None = None) -> Any:
    """Return the answer or the error of a use case, in a form that can be compared."""
    try:
        return body_of(use_case(OPERATOR, {"task": task}, key))
    except SlurmProxyError as error:
        return type(error), str(error), error.extra()


def tasks_with_each_option() -> list[tuple[str, dict[str, Any]]]:
    beside = {"open_mode": {"output": "o"}}
    tasks = [
        (option, make_task(slurm={option: EXAMPLES[option], **beside.get(option, {})}))
        for option in SlurmOptions.model_fields
    ]
    given = {"environment": {"TOKEN": "s3cr3t=ü", "OMPI_MCA_plm_slurm_args": "mine"}, "comment": "mine"}
    plain = make_task(notification=make_email())
    words = make_task(argv=["echo", "it's", ""], cmd=None, params=None, slurm={"output": "%N.txt"})
    return [*tasks, ("environment", make_task(slurm=given)), ("none", plain), ("output", words)]


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
def test_a_dry_run_shows_the_body_of_the_submission_in_every_dialect(api: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    wire: Any = RecordingWire(api)
    submitter, _ = submitter_on(store, SlurmClient(Session(wire, "slurm")))
    for option, task in tasks_with_each_option():
        if option in STRUCTURED_ONLY and api == "v0.0.38":
            with pytest.raises(SlurmRefused, match=f"task.slurm.{option}: .* v0.0.38"):
                dry_run(submitter, task)
            with pytest.raises(SlurmRefused, match=f"task.slurm.{option}: .* v0.0.38"):
                submitter.submit(OPERATOR, {"task": task})
            continue
        shown = dry_run(submitter, task)
        submitter.submit(OPERATOR, {"task": task})
        assert wire.sent[-1].path == f"/slurm/{api}/job/submit"
        assert json.loads(json.dumps(shown["slurm"])) == json.loads(json.dumps(wire.sent[-1].body)), option
        assert shown["script"] == shown["slurm"]["script"]
    assert "s3cr3t" in json.dumps([request.body for request in wire.sent])
    store.close()


def test_a_dry_run_only_reads_the_clock_and_the_version_of_slurm(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    wire: Any = RecordingWire(SUPPORTED_API_VERSIONS[0])
    submitter, _ = submitter_on(store, SlurmClient(Session(wire, "slurm")))
    dry_run(submitter, make_task())
    asked = {(request.method, request.path.rpartition("/")[2]) for request in wire.sent}
    assert asked == {("GET", "ping"), ("GET", "diag")}
    before = len(wire.sent)
    dry_run(submitter, make_task())
    assert len(wire.sent) == before
    store.close()


def test_a_dry_run_changes_neither_the_store_nor_slurm(service: Service) -> None:
    service.submit()

    def stored() -> list[str]:
        with sqlite3.connect(service.store._path) as connection:
            return list(connection.iterdump())

    before, jobs, calls = stored(), dict(service.slurm.jobs), list(service.slurm.calls)
    task = make_task(notification=make_email())
    for _ in range(2):
        assert dry_run(service.submitter, task, "a-key")["valid"]
    assert stored() == before
    assert (service.slurm.jobs, service.slurm.calls) == (jobs, calls)
    assert service.submitter.submit(OPERATOR, {"task": task}, "a-key").slurm_job_id


def test_a_repeated_request_is_answered_as_by_a_submission(service: Service) -> None:
    task = make_task()
    service.submitter.submit(OPERATOR, {"task": task}, "a-key")
    lost = left_open(service, exists=False)
    other = {**make_task(), "own": 1}
    dry, real = service.submitter.dry_run, service.submitter.submit
    for sent, key, expected in (
        (task, None, DuplicateUuid),
        (task, "another-key", DuplicateUuid),
        (task, "a-key", None),
        (task, task["uuid"], None),
        (other, "a-key", IdempotencyKeyReused),
        (lost, lost["uuid"], SlurmAmbiguous),
    ):
        found = outcome(dry, sent, key)
        assert found == outcome(real, sent, key)
        assert found["slurm_job_id"] if expected is None else found[0] is expected


def test_a_dry_run_during_an_outage_is_answered_as_a_submission(service: Service) -> None:
    task, _ = service.submit()
    service.slurm.known_down = SlurmUnavailable("slurmrestd cannot be reached")
    for sent, expected in ((make_task(), SlurmUnavailable), (task, DuplicateUuid)):
        found = outcome(service.submitter.dry_run, sent)
        assert found == outcome(service.submitter.submit, sent)
        assert found[0] is expected


def test_a_dry_run_shows_the_events_of_each_receiver(service: Service) -> None:
    params = {"email": make_email()["params"]["email"], "test": {}}
    task = make_task(notification={"methods": ["email", "test"], "params": params})
    answer = service.submitter.dry_run(OPERATOR, {"task": task})
    assert isinstance(answer, DryRun)
    shown = {item.method: body_of(item)["events"] for item in answer.notifications}
    assert shown == {"email": ["end", "cannot_start"], "test": ["end"]}
    named = {**task["notification"], "events": ["fail", {"pending_over": 5}]}
    found = dry_run(service.submitter, {**task, "notification": named})["notifications"]
    assert [item["events"] for item in found] == [["fail", {"pending_over": 5}]] * 2
