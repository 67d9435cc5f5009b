"""Every request, however faulty, gets an answer of the document in time, and never a 500.

Two sources of requests: schemathesis, which reads the served document, and mutations of good requests to
`/submit` and `/monitor`. Both go through `Guard`, which counts them and holds every answer against the
document.
All is derandomized: the same requests each time.
"""

import itertools
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.core import NOT_SET
from werkzeug.test import Client
from werkzeug.wrappers import Response

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmProxyError, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.record import utc_now
from app.models.task import Task
from app.services import Services
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.reply import Reply
from app.slurm.submission import build_submission
from app.web.openapi.operation import Operation
from app.web.openapi.operations import OPERATIONS
from tests.support.contract import Contract
from tests.support.fakes import FakeSlurm
from tests.support.mutations import CHANGES, DAMAGES, Change, Damage, submissions, watches, written
from tests.support.web import prepared_app

LEAST_REQUESTS = 20_000
LONGEST_ANSWER = 5.0  # seconds
MEMORY = Path("/dev/shm")

STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Cluster(FakeSlurm):
    """Makes the body that slurmrestd would get, in its oldest and its newest form."""

    def submit(self, task: Task, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
        newest, oldest = Dialect(SUPPORTED_API_VERSIONS[0]), Dialect(SUPPORTED_API_VERSIONS[-1])
        json.dumps(build_submission(task, command, tag, newest, "hours")).encode()
        with suppress(SlurmRefused):  # it has no `switches`
            json.dumps(build_submission(task, command, tag, oldest, "hours")).encode()
        return super().submit(task, command, tag, expires)

    def send_raw(self, method: str, path: str, **options: Any) -> Reply:
        """Answer for a job that is not known as 24.11 does."""
        kind, _, job_id = path.partition("/")
        if method == "GET" and kind == "job" and int(job_id) not in self.jobs:
            fault = {"error_number": 2017, "error": "Invalid job id specified", "source": "op_handler_job"}
            return Reply(404, {"jobs": [], "errors": [fault], "warnings": []}, "")
        return super().send_raw(method, path, **options)


class Guard:
    """A WSGI application around ours: no answer leaves it that is late, a 5xx, or not in the document."""

    def __init__(self, app: Any, services: Services, slurm: Cluster) -> None:
        self._app = app
        self.services = services
        self.slurm = slurm
        document: Any = Client(app).get("/openapi.json").json
        self.contract = Contract(document)
        self.injected: SlurmProxyError | None = None
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self.client = Client(self)

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        signal.setitimer(signal.ITIMER_REAL, LONGEST_ANSWER)
        began = time.monotonic()
        try:
            response = Response.from_app(self._app, environ)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.statuses[response.status_code] += 1
        if environ["REQUEST_METHOD"] not in ("HEAD", "OPTIONS"):
            self.contract.check(environ["REQUEST_METHOD"], environ["PATH_INFO"], response)
        allowed = self.injected.status if self.injected else None
        if environ["PATH_INFO"].startswith("/readyz"):  # which is not ready while nothing polls
            allowed = 503
        assert response.status_code < 500 or response.status_code == allowed, response.data
        return response(environ, start_response)


def _late(*arguments: object) -> None:
    raise TimeoutError(f"no answer within {LONGEST_ANSWER} s")


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
    slurm = Cluster()
    slurm.put(5, JobState.RUNNING)
    path = Path(folder) / "store.sqlite3"
    with prepared_app(path, slurm, NOTIFICATIONS_SMTP_SERVER="mail.example.com") as app:
        app.extensions["slurm_proxy"].waiting.stop()  # requests that wait are answered at once
        before = signal.signal(signal.SIGALRM, _late)
        yield Guard(app, app.extensions["slurm_proxy"], slurm)
        signal.signal(signal.SIGALRM, before)
    shutil.rmtree(folder)


# --- schemathesis ----------------------------------------------------------------------------

# What hangs on more than the request: what is in the store, and in Slurm.
_BY_CHANCE = {"duplicate_uuid", "idempotency_key_reused", "unknown_job", "unknown_task", "not_the_owner"}
# What JSON Schema cannot say: mail addresses, bytes instead of characters, the operator's lists, which
# parameters belong together, and which tasks there are.
_BEYOND_SCHEMA = re.compile(
    "e-mail address|255 bytes|all messages together|http or https URL|slurm.dependency:"
    "|until: needs wait|wait: needs uuid|until: must be one of change, end|cannot be combined with uuid"
    "|after: must be the `next` of a page|must be a time in ISO 8601|must include a state of tasks"
)


@pytest.fixture(scope="module")
def api(guard: Guard) -> Any:
    return schemathesis.openapi.from_wsgi("/openapi.json", guard)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda found: f"{found.method} {found.path}")
def test_a_request_that_fits_the_document_is_accepted(guard: Guard, api: Any, operation: Operation) -> None:
    @given(case=api[operation.path][operation.method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(STEADY, max_examples=150)
    def ask(case: Any) -> None:
        response = case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])
        if response.status_code == 400 and response.json()["code"] not in _BY_CHANCE:
            details = response.json()["details"]
            assert _has_whole_float(case.body) or all(map(_BEYOND_SCHEMA.search, details)), details

    guard.services.monitor.run_cycle(guard.services.store.now())  # without a poll the service is not ready
    ask()


def _has_whole_float(value: Any) -> bool:
    """Such as 1.0 or 1e300: a whole number to JSON Schema, and none to the server."""
    if isinstance(value, dict | list):
        return any(map(_has_whole_float, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()


# Those that do not take whatever fits into a path.
REFUSABLE = [
    found
    for found in OPERATIONS
    if (found.parameters or found.body or "{" in found.path) and "{notification_id}" not in found.path
]


@pytest.mark.parametrize("operation", REFUSABLE, ids=lambda found: f"{found.method} {found.path}")
def test_a_request_that_does_not_fit_the_document_is_refused(
    guard: Guard, api: Any, operation: Operation
) -> None:
    """Except for the parameters of methods that a task does not use, which the server does not check."""

    @given(case=api[operation.path][operation.method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @settings(STEADY, max_examples=50)
    def ask(case: Any) -> None:
        has_body = operation.body is not None
        response = case.call_and_validate(excluded_checks=[checks.negative_data_rejection] * has_body)
        if has_body and response.status_code == 200 and not _has_whole_float(case.body):
            schema = guard.contract.request(operation.method, operation.path)
            is_left_out = case.body is NOT_SET and operation.is_body_optional
            faults = [] if is_left_out else list(schema.iter_errors(case.body))
            assert faults or _is_usable_query(operation, response.request.url)
            assert all("notification" in fault.path and "params" in fault.path for fault in faults)

    ask()


def _is_usable_query(operation: Operation, url: str) -> bool:
    """Return whether the operation takes a query that its document does not describe.

    `dry_run` may also be 1 or 0, and `POST /submit` ignores other parameters. The query is judged as it was
    sent: an empty list or object leaves nothing of its parameter.
    """
    given = parse_qs(urlsplit(url).query, keep_blank_values=True).get("dry_run", ["false"])
    takes_dry_run = operation.path in ("/submit", "/monitor/cancel") or operation.path.endswith("/resubmit")
    return takes_dry_run and given in (["true"], ["false"], ["1"], ["0"])


# --- mutations -------------------------------------------------------------------------------

FAILURES = (SlurmRefused, SlurmUnavailable, SlurmMisbehaved, SlurmAmbiguous)
KEYS = st.sampled_from([None] * 8 + ["k", '"q"', "", "ü", "x" * 256, " "])
_numbers = itertools.count()


@given(
    which=st.integers(0, 2),
    changes=CHANGES,
    damage=DAMAGES,
    failure=st.sampled_from([None] * 9 + list(FAILURES)),
    key=KEYS,
)
@settings(STEADY, max_examples=2_000)
def test_submissions_of_all_kinds(
    guard: Guard, which: int, changes: list[Change], damage: Damage, failure: Any, key: str | None
) -> None:
    for raw in _altered(submissions, which, changes, damage):
        response = guard.client.post("/submit", data=raw)
        if response.status_code == 200:
            _is_kept(guard, json.loads(raw)["task"])
    guard.injected = guard.slurm.failure = failure("so it is") if failure else None
    raw = written(submissions(f"task-{next(_numbers)}")[which])
    guard.client.post("/submit/", data=raw, headers={"Idempotency-Key": key} if key else {})
    guard.injected = guard.slurm.failure = None


@given(which=st.integers(0, 2), changes=CHANGES, damage=DAMAGES, key=KEYS)
@settings(STEADY, max_examples=300)
def test_resubmissions_of_all_kinds(
    guard: Guard, which: int, changes: list[Change], damage: Damage, key: str | None
) -> None:
    source = f"task-{next(_numbers)}"
    guard.client.post("/submit", data=written(submissions(source)[which]))
    path, headers = f"/monitor/task_uuid/{source}/resubmit", {"Idempotency-Key": key} if key else {}
    for raw in (b"", *_altered(submissions, which, changes, damage)):
        response: Any = guard.client.post(path, data=raw, headers=headers)
        if response.status_code == 200:
            found: Any = guard.client.get(f"/monitor/task_uuid/{response.json['uuid']}").json
            assert found["monitor"]["resubmitted_from"] == source
            assert found["monitor"]["task"]["uuid"] == response.json["uuid"]
        guard.client.post(f"{path}?dry_run=true", data=raw, headers=headers)


@given(which=st.integers(0, 2), changes=CHANGES, damage=DAMAGES)
@settings(STEADY, max_examples=1_000)
def test_registrations_of_all_kinds(guard: Guard, which: int, changes: list[Change], damage: Damage) -> None:
    for raw in _altered(watches, which, changes, damage):
        response = guard.client.post("/monitor", data=raw)
        if response.status_code == 200:
            _is_kept(guard, json.loads(raw)["monitor"]["task"])


@given(
    st.sampled_from(["/submit", "/monitor"]), st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
)
@settings(STEADY, max_examples=1_000)
def test_bodies_that_are_anything(guard: Guard, path: str, raw: bytes) -> None:
    assert guard.client.post(path, data=raw).status_code == 400


@given(
    st.sampled_from(["/monitor/slurm_job_id/", "/monitor/task_uuid/", "/slurm/jobs/", "/slurm/job/"]),
    st.from_regex(r"\A0{0,20}[0-9]{1,40}\Z")
    | st.integers(2**32 - 9, 2**32 + 9).map(str)
    | st.sampled_from(["submit", "cancel"])
    | st.text(min_size=1, max_size=30),
    st.sampled_from(["GET", "GET", "DELETE"]),
)
@settings(STEADY, max_examples=1_000)
def test_ids_of_all_kinds(guard: Guard, path: str, id_: str, method: str) -> None:
    guard.client.open(path + quote(id_, safe=""), method=method)


@given(
    st.dictionaries(
        st.sampled_from(["status", "method", "limit", "username", "more"]),
        st.sampled_from(["dead", "sent", "email", "", "1", "000001" + "9" * 20, "٣", "a\nb"])
        | st.text(max_size=10),
        max_size=3,
    )
)
@settings(STEADY, max_examples=500)
def test_queries_of_all_kinds(guard: Guard, query: dict[str, str]) -> None:
    guard.client.get("/notifications", query_string=query)
    guard.client.post("/notifications/retry", query_string=query)
    guard.client.post("/slurm/job/submit", query_string=query, data="{}")


def _altered(
    good: Callable[[str], list[Any]], which: int, changes: list[Change], damage: Damage
) -> Iterator[bytes]:
    """A good body with one or two of the changes, for each of them; the last one damaged, too."""
    for number in range(len(changes)):
        body = good(f"task-{next(_numbers)}")[which]
        for change in changes[max(0, number - number % 2) : number + 1]:
            change.apply(body)
        raw = written(body)
        yield raw
    yield damage.apply(raw)


def _is_kept(guard: Guard, task: dict[str, Any]) -> None:
    """Verbatim, under its uuid."""
    answer = guard.client.get(f"/monitor/task_uuid/{task['uuid']}").json
    assert answer is not None
    assert json.dumps(answer["monitor"]["task"]) == json.dumps(task)


# --- and afterwards --------------------------------------------------------------------------


def test_every_accepted_task_can_be_monitored_to_its_end(guard: Guard) -> None:
    store, slurm = guard.services.store, guard.slurm
    for job_id in list(slurm.jobs):
        slurm.put(job_id, JobState.COMPLETED, exit_code=0, array_tasks={JobState.COMPLETED: 4})
    assert len(store.list_open_jobs()) > 1000
    guard.services.monitor.run_cycle(utc_now())
    assert store.list_open_jobs() == []
    for path in ("/notifications?status=due&limit=1000", "/monitor/slurm_job_id/5"):
        assert guard.client.get(path).status_code == 200


def test_there_were_enough_requests(guard: Guard) -> None:
    sys.stdout.write(f"{guard.statuses.total()} requests, {guard.statuses}, {guard.slowest:.2f} s\n")
    assert guard.statuses.total() >= LEAST_REQUESTS
    assert guard.slowest < LONGEST_ANSWER
    assert {200, 400, 404, 502, 503, 504} <= guard.statuses.keys()
