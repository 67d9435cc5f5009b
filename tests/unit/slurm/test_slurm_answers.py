"""Answers in another form than Slurm's own: odd bytes, odd types, a proxy's pages."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import (
    RefusalWithoutReason,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.job_identity import is_tagged, make_tag
from app.lifecycle.reservations import Reservations
from app.lifecycle.submit import TaskSubmitter
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.caller import OPERATOR
from app.models.catalogue_entry import CatalogueEntry
from app.models.job import SlurmJob
from app.models.task import Task
from app.senders import find_channel
from app.slurm.client import SlurmClient
from app.slurm.reply import Reply, read_json
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.store.sqlite import SqliteStore
from tests.support.tasks import make_task

OLD, NEW = "v0.0.38", "v0.0.45"
DIALECTS = [OLD, "v0.0.40", "v0.0.42", NEW]
CATALOGUE = {"generic": CatalogueEntry(requires_command=True)}
NOW = datetime.now(UTC)
IDLE = b'{"errors": [], "statistics": {"dbd_agent_queue_size": 0, "req_time": %d}}' % NOW.timestamp()


Answers = Mapping[str, bytes | tuple[int, bytes]]


class Wire:
    """Stands where Connection does, and answers each route with set bytes."""

    host = "http://slurm.example"
    max_call_seconds = 36.0
    read_timeout = 30.0

    def __init__(self, api: str, answers: Answers) -> None:
        self.api = api
        self.answers = {"GET ping": b"{}", "GET diag": IDLE, **answers}

    def abort_reads(self) -> None:
        pass

    def send(self, request: SlurmRequest) -> Reply:
        parts = request.path.split("/")
        if self.api not in parts:
            return Reply.read(404, b"Unable find requested URL")
        route = " ".join([request.method, "/".join(parts[1:2] if parts[1] == "slurmdb" else parts[3:])])
        answer = self.answers.get(route, (404, b'{"errors": [{"error_number": 2017, "error": "unknown"}]}'))
        status, content = (200, answer) if isinstance(answer, bytes) else answer
        return Reply.read(status, content)

    def close(self) -> None:
        pass


def client_of(api: str, answers: Answers) -> SlurmClient:
    """Return a client whose slurmrestd is idle but for these answers."""
    wire: Any = Wire(api, answers)
    return SlurmClient(Session(wire, "slurm"))


def submit(client: SlurmClient) -> tuple[int, list[str]]:
    task = Task.model_validate(make_task())
    return client.submit(task, "true", make_tag(task.uuid), NOW + timedelta(minutes=1))


# --- bytes -------------------------------------------------------------------------------------


def controller_job(api: str, job_id: int, **fields: Any) -> dict[str, Any]:
    """A job as these releases list it, with what is read of it."""
    is_old = api == OLD
    base: dict[str, Any] = {
        "job_id": job_id,
        "user_name": "alice",
        "job_state": "COMPLETED" if is_old else ["COMPLETED"],
        "state_reason": "None",
        "exit_code": 0 if is_old else {"status": ["SUCCESS"], "return_code": {"set": True, "number": 0}},
        "submit_time": 1_800_000_000 if is_old else {"set": True, "infinite": False, "number": 1_800_000_000},
        "name": "mine",
        "current_working_directory": "/home/alice",
        "comment": "slurm-proxy:abc",
        "partition": "debug",
    }
    return {**base, **fields}


def accounting_job(api: str, job_id: int, **fields: Any) -> dict[str, Any]:
    state = "COMPLETED" if api == OLD else ["COMPLETED"]
    base: dict[str, Any] = {
        "job_id": job_id,
        "user": "alice",
        "state": {"current": state, "reason": "None"},
        "time": {"submission": 1_800_000_000},
        "name": "mine",
        "comment": {"job": "slurm-proxy:abc"},
    }
    return {**base, **fields}


MARK = "MARK"
# What may stand in the place of MARK on the wire.
ODD_BYTES = [
    b"d\xe9d\xe9",
    b"\xed\xa0\x80",
    b"\xff\xfe\x00",
    b"\x00\x01\x1f\x7f",
    b"a\nb",
    rb"\ud800",
    rb"\u0000\n",
]
TEXTS = [
    "name",
    "comment",
    "current_working_directory",
    "account",
    "user_name",
    "partition",
    "nodes",
    "state_reason",
    "standard_output",
    "job_state",
]


def on_the_wire(jobs: list[dict[str, Any]], odd: bytes) -> bytes:
    return json.dumps({"jobs": jobs, "errors": []}).encode().replace(MARK.encode(), odd)


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("odd", ODD_BYTES)
@pytest.mark.parametrize("field", TEXTS)
def test_odd_bytes_in_a_field_of_one_job_hide_no_other_job(api: str, odd: bytes, field: str) -> None:
    listed = [controller_job(api, 5, **{field: MARK}), controller_job(api, 6)]
    states = [{"job_id": "5", "state": ["COMPLETED"]}, {"job_id": "6", "state": ["COMPLETED"]}]
    accounted = [accounting_job(api, 5, **{field: MARK}), accounting_job(api, 6)]
    client = client_of(
        api,
        {
            "GET jobs": on_the_wire(listed, odd),
            "GET jobs/state": on_the_wire([*states, {"job_id": "7", "state": [MARK]}], odd),
            "GET job/6": on_the_wire(listed[1:], odd),
            "GET job/5": on_the_wire(listed[:1], odd),
            "GET slurmdb": on_the_wire(accounted, odd),
        },
    )
    news = client.poll({5: JobState.RUNNING, 6: JobState.RUNNING})
    assert news[6] is not None
    assert news[6].job_state is JobState.COMPLETED
    if field != "job_state":
        assert news[5] is not None
        assert_storable(news[5])
    found = client.read_accounting([5, 6]) or {}
    assert found.keys() == {5, 6}
    assert_storable(found[5])
    seen = client.search(["alice"], NOW, ["slurm-proxy:abc"])
    assert 6 in [job.job_id for job in seen.controller]
    assert [job.job_id for job in seen.accounted] == [5, 6]


def assert_storable(job: SlurmJob) -> None:
    for value in job.model_dump().values():
        if isinstance(value, str):
            value.encode()
            assert value.isprintable(), value
    json.dumps(job.model_dump(mode="json"), allow_nan=False)


def test_bytes_that_are_not_utf_8_are_replaced_and_the_rest_is_unchanged() -> None:
    assert read_json(b'{"a": "d\xe9d\xe9", "b": "d\xc3\xa9", "c": "\\ud83d\\ude00"}') == {
        "a": "d\ufffdd\ufffd",
        "b": "d\u00e9",
        "c": "\U0001f600",
    }
    assert read_json(rb'["\ud800x", "\\ud800", "\u0000", "\n\t"]') == ["\ufffdx", "\\ud800", "\ufffd", "\n\t"]
    assert read_json(b"[1e999, NaN, 18446744073709551615, " + b"9" * 5000 + b"]") == [
        None,
        None,
        18446744073709551615,
        None,
    ]


# --- what is not JSON --------------------------------------------------------------------------

PAGE = b"<html>\n<title>Welcome</title></html>"


@pytest.mark.parametrize(
    "content", [PAGE, b"", b"[]", b"null", b"{" * 100_000, b'{"a": ' * 50_000, b"\xff\xfe"]
)
def test_an_answer_that_is_not_json_is_called_so(content: bytes) -> None:
    answers = dict.fromkeys(["GET jobs", "GET jobs/state", "GET job/5"], content)
    client = client_of(NEW, answers)
    asked: list[Callable[[], object]] = [
        lambda: client.poll({5: JobState.RUNNING}),
        lambda: client.find_job(5),
        lambda: client.search(["alice"], NOW, ["tag"]),
        lambda: client.read_recent_jobs(NOW),
    ]
    for ask in asked:
        with pytest.raises(
            SlurmUnavailable, match=r"cannot be read: (not JSON|no JSON|empty|nested too deeply)"
        ):
            ask()


def test_an_answer_that_is_not_json_is_logged_once_until_it_is_json_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    wire: Any = Wire(OLD, {"GET jobs": PAGE})
    client = SlurmClient(Session(wire, "slurm"))
    for _ in range(10):
        with pytest.raises(SlurmUnavailable):
            client.poll({5: JobState.RUNNING})
        client.send_raw("GET", "diag")
    (line,) = [record.message for record in caplog.records if "not JSON" in record.message]
    assert "GET /slurm/v0.0.38/jobs" in line
    assert "<html> <title>Welcome" in line
    wire.answers["GET jobs"] = b'{"jobs": []}'
    assert client.poll({5: JobState.RUNNING}) == {5: None}
    assert [record for record in caplog.records if "with JSON again" in record.message]


# --- submissions -------------------------------------------------------------------------------

ERRORS = {OLD: b'{"errors": [{"error_code": %d, "error": "words of Slurm"}]}'}
ERRORS[NEW] = b"""{"errors": [{"description": "Batch job submission failed", "error_number": %d,
    "error": "words of Slurm", "source": "slurm_submit_batch_job()"}], "warnings": []}"""


@pytest.mark.parametrize("api", [OLD, NEW])
@pytest.mark.parametrize(
    ("status", "number", "expected"),
    [
        (500, 2000, SlurmRefused),
        (422, 2000, SlurmRefused),
        (500, 7405, SlurmRefused),  # 26.05: an error in job_submit.lua
        (500, -1, RefusalWithoutReason),
        (500, 1800, SlurmUnavailable),
        (502, 1800, SlurmUnavailable),
        # seen where slurmctld was stopped, killed, or its answer cut off after it had taken the job
        (500, 5004, SlurmAmbiguous),
        (504, 5004, SlurmAmbiguous),
        (502, 5005, SlurmAmbiguous),
        (502, 5003, SlurmAmbiguous),
        (500, 104, SlurmAmbiguous),
        (500, 32, SlurmAmbiguous),
        (403, 1, SlurmAmbiguous),
        (200, 0, SlurmAmbiguous),
    ],
)
def test_an_error_of_slurm_tells_whether_there_is_a_job(
    api: str, status: int, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught:
        submit(client_of(api, {"POST job/submit": (status, ERRORS[api] % number)}))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, SlurmAmbiguous),
        (400, SlurmMisbehaved),
        (403, SlurmAmbiguous),
        (404, SlurmUnavailable),
        (407, SlurmMisbehaved),
        (408, SlurmAmbiguous),
        (409, SlurmAmbiguous),
        (413, SlurmRefused),
        (425, SlurmUnavailable),
        (429, SlurmUnavailable),
        (431, SlurmRefused),
        (499, SlurmAmbiguous),
        (500, SlurmAmbiguous),
        (502, SlurmAmbiguous),
        (503, SlurmAmbiguous),
        (504, SlurmAmbiguous),
        (200, SlurmAmbiguous),
        (202, SlurmAmbiguous),
    ],
)
@pytest.mark.parametrize("content", [PAGE, b"", b"{}", b'{"message": "no"}'])
def test_a_proxys_answer_is_no_refusal_by_slurm(
    status: int, expected: type[Exception], content: bytes
) -> None:
    with pytest.raises(expected) as caught:
        submit(client_of(NEW, {"POST job/submit": (status, content)}))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "job_id", ["5.0", "-5", "true", '"5"', "[5]", str(2**32 - 2), str(2**32), str(2**63), "9" * 5000]
)
def test_a_job_id_that_slurm_cannot_give_is_ambiguous(job_id: str) -> None:
    content = f'{{"job_id": {job_id}, "errors": [{{"error_number": 2015}}]}}'.encode()
    with pytest.raises(SlurmAmbiguous):
        submit(client_of(NEW, {"POST job/submit": content}))


@pytest.mark.parametrize("remarks", ['"late"', '{"error": "late"}', '["late"]', '[{"description": "late"}]'])
@pytest.mark.parametrize("field", ["errors", "warnings"])
def test_remarks_of_any_shape_on_a_job_that_slurm_took_are_warnings(field: str, remarks: str) -> None:
    content = f'{{"job_id": 5, "{field}": {remarks}, "job_submit_user_msg": "be quick"}}'.encode()
    assert submit(client_of(NEW, {"POST job/submit": content})) == (5, ["Slurm: late", "Slurm: be quick"])


# --- a refusal without a reason, as by a job_submit plugin --------------------------------------


def submitter_on(store: SqliteStore, client: SlurmClient) -> tuple[TaskSubmitter, SlurmClient]:
    planner = Planner(CATALOGUE, {}, find_channel)
    validator = RequestValidator(CATALOGUE, {"root", "slurm"})
    clocks = ClockGuard(client, timedelta(hours=1))
    reservations = Reservations(store, client, clocks)
    life = timedelta(seconds=96)
    submitter = TaskSubmitter(store, client, planner, validator, reservations, submission_life=life)
    return submitter, client


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    yield store
    store.close()


@pytest.mark.parametrize("api", [OLD, NEW])
def test_a_refusal_without_a_reason_is_a_refusal_once_slurmctld_shows_no_job(
    store: SqliteStore, api: str
) -> None:
    nothing = on_the_wire([], b"")
    answers: Answers = {
        "POST job/submit": (500, ERRORS[api] % -1),
        "GET jobs": nothing,
        "GET jobs/state": nothing,
    }
    submitter, client = submitter_on(store, client_of(api, answers))
    task = make_task()
    for _ in range(5):  # the circuit does not open: Slurm does answer
        with pytest.raises(SlurmRefused, match="submit rules"):
            submitter.submit(OPERATOR, {"task": task})
        assert store.find_by_uuids([task["uuid"]]) == {}
    client.require_up()


@pytest.mark.parametrize("api", [OLD, NEW])
@pytest.mark.parametrize(
    "look",
    [(500, b'{"errors": [{"error_code": -1, "error": "Unspecified error"}], "jobs": []}'), (502, b""), PAGE],
)
def test_a_refusal_without_a_reason_stays_ambiguous_while_slurmctld_cannot_be_searched(
    store: SqliteStore, api: str, look: bytes | tuple[int, bytes]
) -> None:
    """22.05 answers a bad token, and for a slurmctld that is down, with -1 as well."""
    answers: Answers = {"POST job/submit": (500, ERRORS[api] % -1), "GET jobs": look, "GET jobs/state": look}
    submitter, _ = submitter_on(store, client_of(api, answers))
    task = make_task()
    with pytest.raises(SlurmAmbiguous):
        submitter.submit(OPERATOR, {"task": task})
    assert store.find_by_uuids([task["uuid"]])[task["uuid"]].is_reserved


@pytest.mark.parametrize("error", [-1, 5005])
def test_an_error_without_a_reason_is_no_refusal_where_the_job_is_there(
    store: SqliteStore, error: int
) -> None:
    """As when the answer of slurmctld was lost on its way to slurmrestd."""
    task = make_task()
    listed = [controller_job(OLD, 7, user_name=task["username"], comment=make_tag(task["uuid"]))]
    answers: Answers = {"POST job/submit": (500, ERRORS[OLD] % error), "GET jobs": on_the_wire(listed, b"")}
    submitter, _ = submitter_on(store, client_of(OLD, answers))
    assert submitter.submit(OPERATOR, {"task": task}).slurm_job_id == 7


def test_a_job_of_the_same_user_that_cannot_be_read_frees_no_reservation(store: SqliteStore) -> None:
    task = make_task()
    odd = {**controller_job(OLD, 7, user_name=task["username"]), "job_id": None}
    answers: Answers = {"POST job/submit": (500, ERRORS[OLD] % -1), "GET jobs": on_the_wire([odd], b"")}
    submitter, _ = submitter_on(store, client_of(OLD, answers))
    with pytest.raises(SlurmAmbiguous):
        submitter.submit(OPERATOR, {"task": task})
    assert store.find_by_uuids([task["uuid"]])[task["uuid"]].is_reserved


def test_the_search_after_a_refusal_reads_only_the_newest_jobs() -> None:
    """However many there are in slurmctld: a site may refuse many submissions."""
    states = [{"job_id": str(job_id), "state": ["RUNNING"]} for job_id in range(1, 5001)]
    answers = {"GET jobs/state": on_the_wire(states, b"")}
    for job_id, age, array_id in ((4998, 600, 0), (4999, 0, 0), (5000, 600, 7)):  # 5000: a task of an array
        at = {"set": True, "infinite": False, "number": int(NOW.timestamp()) - age}
        job = controller_job(NEW, job_id, submit_time=at, array_job_id=array_id, array_task_id=1)
        answers[f"GET job/{job_id}"] = on_the_wire([job], b"")
    jobs = client_of(NEW, answers).read_recent_jobs(NOW)
    assert [job.job_id for job in jobs] == [5000, 4999, 4998]


@pytest.mark.parametrize("items", [["x"], [None, 5], ["x", {"job_id": 6}]])
def test_a_list_with_items_that_are_no_objects_is_no_proof_that_a_job_is_gone(items: list[Any]) -> None:
    content = json.dumps({"jobs": items}).encode()
    client = client_of(OLD, {"GET jobs": content, "GET job/5": content})
    with suppress(SlurmUnavailable):
        assert client.poll({5: JobState.RUNNING}) == {}
    with pytest.raises((SlurmUnavailable, SlurmMisbehaved)):
        client.find_job(5)


# --- any shape ---------------------------------------------------------------------------------

KEYS = """errors warnings jobs job_id status statistics dbd_agent_queue_size error error_number error_code
    code description job_submit_user_msg result job_state state current user user_name comment job time steps
    tres requested max count type seconds total exit_code signal id return_code set infinite number array
    paths array_job_id name required memory_per_node submit_time start_time end_time association"""
WORDS = st.sampled_from(KEYS.split())
NUMBERS = st.sampled_from(
    [0, 1, -1, 5, 1007, 1800, 2000, 2017, 2021, 5005, 9003, 2**31, 2**63, 2**64, -(2**70)]
)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["alice", "RUNNING"])
)
SHAPES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)
BODIES = st.dictionaries(WORDS, SHAPES, max_size=6) | SHAPES
STATUSES = st.sampled_from([200, 202, 304, 400, 401, 403, 404, 408, 422, 429, 499, 500, 502, 503, 504, 511])
CONTENTS = BODIES.map(lambda body: json.dumps(body).encode()) | st.sampled_from(
    [b"{" * 5000, b'{"a":' * 5000]
)
ANSWERS = st.tuples(STATUSES, CONTENTS)
EMPTY = dict.fromkeys(["GET jobs", "GET jobs/state"], b'{"jobs": []}')
OFTEN = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@OFTEN
@given(answer=ANSWERS, api=st.sampled_from(DIALECTS))
def test_only_errors_of_our_own_come_out_of_any_answer(answer: tuple[int, bytes], api: str) -> None:
    odd = dict.fromkeys(
        [
            "GET jobs",
            "GET job/5",
            "GET jobs/state",
            "GET slurmdb",
            "GET diag",
            "DELETE job/5",
            "DELETE jobs/",
            "POST job/5",
            "POST jobs/requeue",
            "POST job/submit",
        ],
        answer,
    )
    asked: list[Callable[[SlurmClient], object]] = [
        lambda client: client.poll({5: JobState.RUNNING, 6: JobState.PENDING}),
        lambda client: client.read_jobs([5, 6]),
        lambda client: client.find_job(5),
        lambda client: client.read_accounting([5]),
        lambda client: client.search(["alice"], NOW, ["tag"]),
        lambda client: client.read_recent_jobs(NOW),
        lambda client: client.control.cancel(5, "alice"),
        lambda client: client.control.cancel_many([5, 6], "alice"),
        lambda client: client.control.hold(5, "alice"),
        lambda client: client.control.release(5, "alice"),
        lambda client: client.control.requeue(5, "alice"),
        lambda client: client.read_controller_time(),
        lambda client: client.send_raw("GET", "diag"),
        lambda client: client.send_raw_list(0),
        submit,
    ]
    for ask in asked:
        choices: tuple[Answers, ...] = (odd, {**odd, **EMPTY, "GET diag": IDLE})
        for answers in choices:
            with suppress(SlurmProxyError):
                ask(client_of(api, answers))


@OFTEN
@given(answer=ANSWERS)
def test_no_answer_to_a_submission_leaves_a_reservation_that_could_be_settled(
    store: SqliteStore, answer: tuple[int, bytes]
) -> None:
    submitter, _ = submitter_on(
        store, client_of(NEW, {"POST job/submit": answer, "GET jobs/state": b'{"jobs": []}'})
    )
    task = make_task()
    try:
        job_id = submitter.submit(OPERATOR, {"task": task}).slurm_job_id
        assert store.find_by_uuids([task["uuid"]])[task["uuid"]].slurm_job_id == job_id
    except SlurmAmbiguous:
        assert store.find_by_uuids([task["uuid"]])[task["uuid"]].is_reserved
    except (SlurmRefused, SlurmUnavailable, SlurmMisbehaved):
        assert store.find_by_uuids([task["uuid"]]) == {}


def test_an_unreadable_field_hides_no_other_field_of_the_job() -> None:
    odd: dict[str, Any] = {
        "exit_code": [],
        "submit_time": 2**63,
        "start_time": -5,
        "cpus": True,
        "memory_per_node": 10**30,
        "array_job_id": "x",
        "name": 7,
    }
    client = client_of(OLD, {"GET jobs": on_the_wire([controller_job(OLD, 5, **odd)], b"")})
    job = client.poll({5: JobState.RUNNING})[5]
    assert job is not None
    assert job.job_state is JobState.COMPLETED
    assert (job.name, job.cpus, job.memory_mb, job.submit_time, job.exit_code) == (None,) * 5
    assert is_tagged(job, "abc")
