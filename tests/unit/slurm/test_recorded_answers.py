"""Answers of real servers, recorded, as this service reads them.

`recorded_answers/<release>/<API version>/` has one file for each answer, with its request.
`tests/support/record_slurm_answers.py` records them again, or those of a new release.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from app.errors import SlurmRefused, SlurmTokenRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import utc_now
from app.models.task import Task
from app.slurm.answers import is_unchanged
from app.slurm.client import SlurmClient
from app.slurm.dialect import Dialect
from app.slurm.job_control import JobOutcome
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from tests.support.tasks import make_task

FOLDER = Path(__file__).with_name("recorded_answers")
SERVERS = sorted(path.parent for path in FOLDER.glob("*/*/ping.json"))
OLDEST = "v0.0.38"

pytestmark = pytest.mark.parametrize("server", SERVERS, ids=lambda path: f"{path.parent.name} {path.name}")


@dataclass(frozen=True)
class Recording:
    """One recorded answer, and the request that it belongs to."""

    method: str
    path: str
    reply: Reply

    @property
    def job_id(self) -> int:
        return int(urlsplit(self.path).path.rpartition("/")[2])

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.path).query)


def recording(server: Path, name: str) -> Recording:
    recorded = json.loads((server / f"{name}.json").read_text())
    answer = recorded["answer"]
    content = answer if isinstance(answer, str) else json.dumps(answer)
    return Recording(recorded["method"], recorded["path"], Reply.read(recorded["status"], content.encode()))


class Replay:
    """Stands in place of Connection, and answers with recordings; other versions are not offered."""

    host = "http://slurm.example"
    max_call_seconds = 36.0

    def abort_reads(self) -> None:
        pass

    def __init__(self, server: Path, names: tuple[str, ...]) -> None:
        self._recordings = [recording(server, name) for name in ("ping", *names)]
        self._other_version = recording(server, "version_unknown").reply
        self._api = server.name

    def send(self, request: SlurmRequest) -> Reply:
        if self._api not in request.path:
            return self._other_version
        path = f"{request.path}?{urlencode(request.query)}" if request.query else request.path
        (reply,) = [
            each.reply for each in self._recordings if (each.method, each.path) == (request.method, path)
        ]
        return reply


def client_of(server: Path, *names: str) -> SlurmClient:
    """Return a client that is given these recordings."""
    connection: Any = Replay(server, names)
    return SlurmClient(Session(connection, "slurm"))


def job_of(server: Path, name: str) -> SlurmJob:
    """Return the job of a recording, from slurmctld or from slurmdbd."""
    recorded = recording(server, name)
    client = client_of(server, name)
    if name.startswith("accounting_"):
        ((_, job_id),) = recorded.query
        found = client.read_accounting([int(job_id)])
        assert found is not None
        return found[int(job_id)]
    job = client.read_jobs([recorded.job_id])[recorded.job_id]
    assert job is not None
    return job


def test_every_recording_is_there(server: Path) -> None:
    names = {path.stem for path in server.glob("*.json")}
    dialect = Dialect(server.name)
    absent = set() if dialect.has_state_list else {"states"}
    absent |= set() if dialect.has_bulk_cancellation else {"cancel_many"}
    absent |= set() if dialect.has_requeue else {name for name in OTHERS if name.startswith("requeue_")}
    assert names == {*JOBS, *ARRAYS, *OTHERS} - absent


# --- jobs -----------------------------------------------------------------------------------------

# State, exit code, signal, whether it has begun, and whether it has ended.
JOBS = {
    "job_pending": (JobState.PENDING, None, None, False, False),
    "job_running": (JobState.RUNNING, None, None, True, False),
    "job_completed": (JobState.COMPLETED, 0, None, True, True),
    "job_failed": (JobState.FAILED, 3, None, True, True),
    "job_killed": (JobState.FAILED, None, 9, True, True),
    "job_cancelled": (JobState.CANCELLED, None, 15, True, True),
    "job_timed_out": (JobState.TIMEOUT, None, 15, True, True),
    "heterogeneous_pending": (JobState.PENDING, None, None, False, False),
    "accounting_completed": (JobState.COMPLETED, 0, None, True, True),
    "accounting_failed": (JobState.FAILED, 3, None, True, True),
    "accounting_killed": (JobState.FAILED, None, 9, True, True),
    "accounting_cancelled": (JobState.CANCELLED, None, None, True, True),  # slurmdbd has no signal for them
    "accounting_timed_out": (JobState.TIMEOUT, None, None, True, True),
}
# slurmdbd of 22.05 has 0 for every exit code.
JOBS_OF_OLDEST = {**JOBS, "accounting_failed": (JobState.FAILED, None, None, True, True)}


@pytest.mark.parametrize("name", JOBS)
def test_a_recorded_job_has_its_state_and_its_end(server: Path, name: str) -> None:
    job = job_of(server, name)
    has_begun, has_ended = job.start_time is not None, job.end_time is not None
    expected = JOBS_OF_OLDEST if server.name == OLDEST else JOBS
    assert (job.job_state, job.exit_code, job.signal, has_begun, has_ended) == expected[name]


@pytest.mark.parametrize("name", JOBS)
def test_a_recorded_job_has_what_was_submitted(server: Path, name: str) -> None:
    job = job_of(server, name)
    assert (job.username, job.name, job.cpus, job.memory_mb) == ("alice", "generic", 1, 10)
    assert (job.time_limit_minutes, job.partition) == (1, "debug")
    assert job.submit_time is not None


def test_a_recorded_pending_job_says_why_it_waits(server: Path) -> None:
    job = job_of(server, "job_pending")
    assert (job.reason, job.nodes, job.comment) == ("JobHeldUser", None, "slurm-proxy:recorded")


# --- arrays ---------------------------------------------------------------------------------------

ARRAYS = {
    "array_pending": ("PENDING", {"PENDING": 5}, None),
    "array_partly_run": ("RUNNING", {"COMPLETED": 1, "FAILED": 1, "RUNNING": 1, "PENDING": 1}, "1"),
    "array_ended": ("FAILED", {"COMPLETED": 3, "FAILED": 1}, "1"),
    "accounting_array_partly_run": (
        "RUNNING",
        {"COMPLETED": 1, "FAILED": 1, "RUNNING": 1, "PENDING": 1},
        "1",
    ),
    "accounting_array_ended": ("FAILED", {"COMPLETED": 3, "FAILED": 1}, "1"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_recorded_array_is_one_job(server: Path, name: str) -> None:
    state, counts, failed = ARRAYS[name]
    job = job_of(server, name)
    assert job.job_state is JobState(state)
    assert job.array_tasks == {JobState(each): count for each, count in counts.items()}
    assert job.failed_tasks == failed
    has_exit_code = state == "FAILED" and (server.name, name) != (OLDEST, "accounting_array_ended")
    assert job.exit_code == (7 if has_exit_code else None)


# --- all other answers ----------------------------------------------------------------------------

OTHERS = {
    "accounting_unknown",
    "cancel_accepted",
    "cancel_ended",
    "cancel_unknown",
    "cancel_many",
    "hold_accepted",
    "hold_array",
    "hold_ended",
    "hold_unknown",
    "release_accepted",
    "requeue_accepted",
    "requeue_pending",
    "requeue_unknown",
    "diag",
    "diag_with_wrong_key",
    "job_unknown",
    "jobs_unchanged",
    "nodes",
    "partitions",
    "ping",
    "states",
    "submission_accepted",
    "submission_refused",
    "version_unknown",
}


def test_a_recorded_ping_tells_the_dialect(server: Path) -> None:
    connection: Any = Replay(server, ())
    assert Session(connection, "slurm").dialect() == Dialect(server.name)


def test_recorded_partitions_have_their_limits_and_free_cpus(server: Path) -> None:
    first, second = client_of(server, "partitions", "nodes").read_partitions()
    assert (first.name, second.name) == ("debug", "hpcz-test")
    is_told = server.name in ("v0.0.38", "v0.0.45")
    assert (first.default, second.default) == ((True, False) if is_told else (None, None))
    for partition, minutes in ((first, (10080, 60)), (second, (1440, 10))):
        assert (partition.max_time_minutes, partition.default_time_minutes) == minutes
        assert (partition.state, partition.total_nodes, partition.available_nodes) == ("UP", 1, 1)
        assert partition.total_cpus == 2
        assert 0 <= partition.free_cpus <= 2
        assert partition.default_memory_mb_per_cpu == 100
        assert partition.max_nodes is partition.max_memory_mb_per_node is None


def test_a_recorded_diag_tells_the_time_of_slurmctld(server: Path) -> None:
    assert client_of(server, "diag").read_controller_time().year >= 2026


def test_a_recorded_answer_to_a_wrong_key_is_an_error(server: Path) -> None:
    client = client_of(server, "diag_with_wrong_key")
    expected = SlurmUnavailable if server.name == OLDEST else SlurmTokenRefused  # 22.05 gives no reason
    with pytest.raises(expected, match="key"):
        client.read_controller_time()


def test_a_recorded_unknown_job_is_known_to_be_gone(server: Path) -> None:
    job_id = recording(server, "job_unknown").job_id
    client = client_of(server, "job_unknown", "accounting_unknown")
    assert client.read_jobs([job_id]) == {job_id: None}
    assert client.read_accounting([job_id]) == {}
    assert client.find_job(job_id) is None


def test_a_recorded_submission_has_a_job_id(server: Path) -> None:
    recorded = recording(server, "submission_accepted")
    job_id, warnings = submit(client_of(server, "submission_accepted"))
    assert job_id == recorded.reply.body["job_id"]
    held = [warning for warning in warnings if "held" in warning]
    assert held == ["Slurm: Job is in held state, pending scheduler release"]


def test_a_recorded_refusal_has_the_reason_of_slurm(server: Path) -> None:
    with pytest.raises(SlurmRefused, match="Invalid partition name specified"):
        submit(client_of(server, "submission_refused"))


def submit(client: SlurmClient) -> tuple[int, list[str]]:
    task = Task.model_validate(make_task())
    return client.submit(task, "true", "slurm-proxy:recorded", utc_now() + timedelta(minutes=1))


# What Slurm says when an active, an ended and an unknown job are cancelled.
CANCELLED = {
    "v0.0.38": (JobOutcome.UNREPORTED, JobOutcome.UNREPORTED, JobOutcome.UNKNOWN_JOB),
    "v0.0.40": (JobOutcome.UNREPORTED, JobOutcome.UNREPORTED, JobOutcome.UNREPORTED),
}


@pytest.mark.parametrize("number", range(3))
def test_a_recorded_cancellation_tells_whether_the_job_was_active(server: Path, number: int) -> None:
    name = ("cancel_accepted", "cancel_ended", "cancel_unknown")[number]
    expected = CANCELLED.get(server.name, (JobOutcome.DONE, JobOutcome.ENDED, JobOutcome.UNKNOWN_JOB))
    job_id = recording(server, name).job_id
    assert client_of(server, name).control.cancel(job_id, "alice") is expected[number]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hold_accepted", JobOutcome.DONE),
        ("hold_ended", JobOutcome.ENDED),
        ("hold_unknown", JobOutcome.UNKNOWN_JOB),
        ("release_accepted", JobOutcome.DONE),
    ],
)
def test_a_recorded_update_tells_its_outcome(server: Path, name: str, expected: JobOutcome) -> None:
    control = client_of(server, name).control
    change = control.hold if name.startswith("hold") else control.release
    assert change(recording(server, name).job_id, "alice") is expected


def test_a_recorded_hold_of_an_array_is_no_refusal(server: Path) -> None:
    expected = JobOutcome.UNREPORTED if server.name == OLDEST else JobOutcome.DONE
    control = client_of(server, "hold_array").control
    assert control.hold(recording(server, "hold_array").job_id, "alice") is expected


def test_a_recorded_requeue_tells_its_outcome(server: Path) -> None:
    names = ("requeue_accepted", "requeue_pending", "requeue_unknown")
    outcomes = (JobOutcome.DONE, JobOutcome.PENDING, JobOutcome.UNKNOWN_JOB)
    if not Dialect(server.name).has_requeue:
        assert not client_of(server).control.offers_requeue()
        return
    for name, expected in zip(names, outcomes, strict=True):
        assert client_of(server, name).control.requeue(5, "alice") is expected


def test_a_recorded_cancellation_of_several_jobs_has_an_outcome_for_each(server: Path) -> None:
    if not Dialect(server.name).has_bulk_cancellation:
        assert not (server / "cancel_many.json").exists()
        return
    status = recording(server, "cancel_many").reply.body["status"]
    ended, unknown = (int(item["step_id"]) for item in status)
    array = ended - 1
    outcomes = client_of(server, "cancel_many").control.cancel_many([array, ended, unknown], "alice")
    assert outcomes == {
        array: JobOutcome.DONE,
        ended: JobOutcome.ENDED,
        unknown: JobOutcome.UNKNOWN_JOB,
    }


def test_a_recorded_list_without_changes_is_recognised(server: Path) -> None:
    assert is_unchanged(recording(server, "jobs_unchanged").reply)


def test_a_recorded_list_of_states_shows_what_changed(server: Path) -> None:
    if not Dialect(server.name).has_state_list:
        assert not (server / "states.json").exists()
        return
    ended = ("job_completed", "job_failed", "job_killed", "job_cancelled")
    asked = [int(job_id) for _, job_id in recording(server, "states").query]
    unknown = recording(server, "job_unknown").job_id
    states = {"job_pending": JobState.PENDING, "array_pending": JobState.PENDING}
    client = client_of(server, "states", *states, *ended)
    known = {recording(server, name).job_id: state for name, state in states.items()}
    changes = client.poll(dict.fromkeys(asked, JobState.RUNNING) | known)
    assert changes == {unknown: None} | {
        recording(server, name).job_id: job_of(server, name) for name in ended
    }
