"""SlurmClient on every cluster: the stand-in, and each real Slurm."""

import gc
import os
import re
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.job_identity import is_tagged
from app.models.cluster_answers import Partition
from app.models.job import SlurmJob
from app.models.task import Task
from app.slurm.accounting import AccountingState
from app.slurm.client import SlurmClient
from app.slurm.connection import Connection
from app.slurm.dialect import Dialect
from app.slurm.health_check import SlurmHealth
from app.slurm.job_control import JobOutcome
from app.slurm.reply import Reply
from app.slurm.request import Query, SlurmRequest
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from tests.conftest import REAL_CLUSTERS, Cluster, until
from tests.support.real.certificates import server_context
from tests.support.tasks import make_task, new_uuid


@pytest.fixture
def client(cluster: Cluster) -> Iterator[SlurmClient]:
    early_jobs(cluster)
    client = cluster.client()
    yield client
    client.close()


def submit(cluster: Cluster, client: SlurmClient, command: str = "true", **slurm: Any) -> int:
    task = Task.model_validate(make_task(cluster.user, slurm={"mem": 50, "environment": "A=b c", **slurm}))
    job_id, _ = client.submit(task, command, f"slurm-proxy:{task.uuid}", in_a_minute())
    return job_id


def in_a_minute() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def ended(client: SlurmClient, job_id: int, seconds: float = 100) -> SlurmJob:
    def look() -> SlurmJob | None:
        job = client.find_job(job_id)
        return job if job is not None and job.job_state.is_final else None

    found: SlurmJob = until(look, seconds, f"the end of job {job_id}")
    return found


def wait_for(client: SlurmClient, job_id: int, state: JobState) -> None:
    until(lambda: (job := client.find_job(job_id)) is not None and job.job_state is state, 60, f"{state}")


def delete(cluster: Cluster, client: SlurmClient, job_id: int) -> None:
    reply = client.send_raw("DELETE", f"job/{job_id}", user=cluster.user)
    assert reply.status == 200, reply.text


def test_a_job_runs_as_its_user_and_comes_back_whole(cluster: Cluster, client: SlurmClient) -> None:
    job_id = submit(cluster, client, "exit 0", job_name="whole", time_minutes=5, comment="mine")
    job = ended(client, job_id)
    assert (job.job_state, job.exit_code, job.signal) == (JobState.COMPLETED, 0, None)
    assert (job.username, job.name, job.time_limit_minutes, job.memory_mb) == (cluster.user, "whole", 5, 50)
    assert job.comment is not None
    assert job.comment.endswith(" mine")
    assert job.submit_time is not None
    assert job.start_time is not None
    assert job.end_time is not None
    assert job.submit_time <= job.start_time <= job.end_time
    assert abs(job.submit_time - datetime.now(UTC)) < timedelta(minutes=3)
    assert job.array_tasks is None


@pytest.mark.parametrize(
    ("command", "exit_code", "number"),
    [("exit 3", 3, None), ("kill -9 $$", None, signal.SIGKILL)],
)
def test_a_failed_job_has_its_exit_code_and_signal(
    cluster: Cluster, client: SlurmClient, command: str, exit_code: int | None, number: int | None
) -> None:
    job = ended(client, submit(cluster, client, command))
    assert (job.job_state, job.exit_code, job.signal) == (JobState.FAILED, exit_code, number)


def test_a_running_and_a_pending_job_can_be_cancelled(cluster: Cluster, client: SlurmClient) -> None:
    running, held = submit(cluster, client, "sleep 600"), submit(cluster, client, hold=True)
    wait_for(client, running, JobState.RUNNING)
    for job_id in (running, held):
        assert client.control.cancel(job_id, cluster.user) in (JobOutcome.DONE, JobOutcome.UNREPORTED)
        assert ended(client, job_id).job_state is JobState.CANCELLED
    client.control.cancel(held, cluster.user)  # not every version says that there was nothing to do
    assert ended(client, held).job_state is JobState.CANCELLED


def test_a_job_that_there_is_not_cannot_be_cancelled(cluster: Cluster, client: SlurmClient) -> None:
    assert client.control.cancel(4_000_000, cluster.user) is JobOutcome.UNKNOWN_JOB


def test_another_users_job_is_not_cancelled(cluster: Cluster, client: SlurmClient) -> None:
    held = submit(cluster, client, hold=True)
    with pytest.raises(SlurmRefused, match="ermission denied"):
        client.control.cancel(held, "daemon" if cluster.other == cluster.user else cluster.other)
    job = client.find_job(held)
    assert job is not None
    assert job.job_state is JobState.PENDING
    delete(cluster, client, held)


def test_the_environment_is_exactly_what_was_asked_for(cluster: Cluster, client: SlurmClient) -> None:
    job_id = submit(cluster, client, '[ "$A" = "b c" ] && [ -n "$SLURM_JOB_ID" ] && exit 7')
    assert ended(client, job_id).exit_code == 7


@pytest.mark.parametrize(
    "slurm",
    [
        {"partition": "no-such-partition"},
        {"mem": 2**30},
        {"array": "nonsense"},
        {"dependency": "nonsense"},
    ],
)
def test_a_refusal_has_slurms_own_text(cluster: Cluster, client: SlurmClient, slurm: dict[str, Any]) -> None:
    with pytest.raises(SlurmRefused, match=r"^Slurm refused the job: \w+"):
        submit(cluster, client, **slurm)


def test_a_user_that_the_cluster_does_not_know_is_refused(cluster: Cluster, client: SlurmClient) -> None:
    task = Task.model_validate(make_task("nobody-knows-me"))
    with pytest.raises(SlurmRefused):
        client.submit(task, "true", "tag", in_a_minute())


def test_poll_tells_only_what_differs(cluster: Cluster, client: SlurmClient) -> None:
    held = submit(cluster, client, hold=True)
    done = submit(cluster, client)
    ended(client, done)
    known = {held: JobState.PENDING, done: JobState.RUNNING, 4_000_000: JobState.RUNNING}
    news = client.poll(known)
    assert news.keys() == {done, 4_000_000}
    assert news[4_000_000] is None
    found = news[done]
    assert found is not None
    assert found.job_state is JobState.COMPLETED
    assert client.poll({held: JobState.PENDING}) == {}
    assert client.poll({}) == {}
    delete(cluster, client, held)
    job = client.poll({held: JobState.PENDING})[held]
    assert job is not None
    assert job.job_state is JobState.CANCELLED


def test_news_that_was_not_stored_comes_again(cluster: Cluster, client: SlurmClient) -> None:
    done = submit(cluster, client)
    ended(client, done)
    for _ in range(3):
        assert done in client.poll({done: JobState.RUNNING})


def test_a_job_is_found_by_its_tag(cluster: Cluster, client: SlurmClient) -> None:
    started = datetime.now(UTC)
    task = Task.model_validate(make_task(cluster.user, slurm={"mem": 50}))
    tag = f"slurm-proxy:{task.uuid}"
    job_id, _ = client.submit(task, "true", tag, in_a_minute())
    seen = client.search([cluster.user], started, [tag])
    (found,) = [job for job in seen.controller if is_tagged(job, task.uuid)]
    assert found.job_id == job_id
    assert found.working_directory == task.cwd
    until(
        lambda: client.search([cluster.user], started, [tag]).accounting is AccountingState.CURRENT,
        30,
        "slurmdbd to know all that slurmctld does",
    )
    assert not [
        job for job in seen.jobs() if is_tagged(job, task.uuid + "x") or is_tagged(job, task.uuid[:-1])
    ]
    assert client.search(["root"], started, [tag]).jobs() == []


def test_a_submission_that_comes_too_late_is_not_taken(cluster: Cluster, client: SlurmClient) -> None:
    """What a process that was frozen, or a network that held it back, sends after the time of its token."""
    started = datetime.now(UTC)
    task = Task.model_validate(make_task(cluster.user, slurm={"mem": 50}))
    tag = f"slurm-proxy:{task.uuid}"
    with pytest.raises((SlurmMisbehaved, SlurmAmbiguous)):
        client.submit(task, "true", tag, started - timedelta(seconds=2))
    found = client.search([cluster.user], started, [tag]).jobs()
    assert not [job for job in found if is_tagged(job, task.uuid)]


def test_an_unknown_job_is_none(client: SlurmClient) -> None:
    assert client.find_job(4_000_000) is None
    assert client.read_accounting([4_000_000]) == {}


def test_a_wrong_key_is_no_refusal_and_no_end(cluster: Cluster) -> None:
    client = replace(cluster, key=b"another key, of more than 32 bytes!!").client()
    for ask in (
        lambda: client.poll({1: JobState.RUNNING}),
        lambda: client.find_job(1),
        lambda: client.search(["alice"], datetime.now(UTC), ["slurm-proxy:x"]),
    ):
        with pytest.raises((SlurmMisbehaved, SlurmUnavailable)):
            ask()
    client.close()


def test_slurm_tells_its_time(client: SlurmClient) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= client.read_controller_time() <= datetime.now(UTC)


def test_slurms_time_can_be_read_where_ordinary_tokens_have_expired(cluster: Cluster) -> None:
    """As on a host whose clock is an hour behind."""
    connection = Connection(cluster.url, TokenMint(cluster.key, -3600), connect_timeout=3, read_timeout=30)
    client = SlurmClient(Session(connection, "slurm"))
    for _ in range(4):  # enough to open the circuit breaker
        with pytest.raises((SlurmMisbehaved, SlurmUnavailable)):
            client.read_controller_time()
    assert abs(client.read_controller_time(in_a_minute()) - datetime.now(UTC)) < timedelta(seconds=5)
    client.close()


def test_raw_answers_are_for_operators(cluster: Cluster, client: SlurmClient) -> None:
    assert client.send_raw("GET", "ping").body["pings"]
    assert "statistics" in client.send_raw("GET", "diag").body
    submit(cluster, client)
    assert client.send_raw_list(0).body["jobs"]


class Counted:
    """Counts what really goes to slurmrestd."""

    def __init__(self, client: SlurmClient) -> None:
        self.requests: list[str] = []
        self._send = client._session._connection.send
        client._session._connection.send = self._count_and_send  # type: ignore[method-assign]

    def _count_and_send(self, request: SlurmRequest) -> Reply:
        self.requests.append(f"{request.method} {request.path}")
        return self._send(request)


def test_three_hundred_jobs_cost_a_handful_of_requests(cluster: Cluster, client: SlurmClient) -> None:
    jobs = [submit(cluster, client, hold=True) for _ in range(300)]
    known: dict[int, JobState] = dict.fromkeys(jobs, JobState.PENDING)
    counted = Counted(client)
    for _ in range(3):
        counted.requests.clear()
        assert client.poll(known) == {}
        assert len(counted.requests) <= 2, counted.requests
    for job_id in jobs:
        delete(cluster, client, job_id)
    counted.requests.clear()
    news: dict[int, SlurmJob | None] = {}
    polls = 0
    while (
        len(news) < 300 and polls < 10
    ):  # one reads jobs for five seconds, and leaves the others to the next
        news |= client.poll(known)
        polls += 1
    assert {job.job_state for job in news.values() if job} == {JobState.CANCELLED}
    assert len(news) == 300
    lists = [request for request in counted.requests if "/job/" not in request]
    assert len(lists) == polls, lists
    assert len(counted.requests) <= 300 + polls


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_an_array_is_one_job(cluster: Cluster, client: SlurmClient) -> None:
    job_id = submit(
        cluster, client, "sleep $((SLURM_ARRAY_TASK_ID * 2)); exit $SLURM_ARRAY_TASK_ID", array="0-2"
    )
    known = {job_id: JobState.PENDING}
    seen = []
    deadline = time.monotonic() + 60
    while not known[job_id].is_final:
        assert time.monotonic() < deadline
        for job in client.poll(known).values():
            assert job is not None
            known[job_id] = job.job_state
            seen.append(job)
        time.sleep(0.3)
    assert known[job_id] is JobState.FAILED
    assert seen[-1].array_tasks == {JobState.COMPLETED: 1, JobState.FAILED: 2}
    assert all(job.job_state is not JobState.COMPLETED for job in seen)


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_the_waiting_tasks_of_an_array_are_counted_until_slurmdbd_alone_knows_them(
    cluster: Cluster, client: SlurmClient
) -> None:
    job_id = submit(cluster, client, array="0-8:2,9%1", hold=True)
    job = client.find_job(job_id)
    assert job is not None
    assert (job.array_tasks, job.failed_tasks) == ({JobState.PENDING: 6}, None)
    delete(cluster, client, job_id)
    for look in (
        lambda: client.find_job(job_id),
        lambda: (client.read_accounting([job_id]) or {}).get(job_id),  # in its first second no array on 22.05
    ):

        def counted(look: Callable[[], SlurmJob | None] = look) -> SlurmJob | None:
            job = look()
            return job if job is not None and job.job_state.is_final and job.array_tasks else None

        job = until(counted, 60, "the end")
        assert (job.array_tasks, job.failed_tasks) == ({JobState.CANCELLED: 6}, "0,2,4,6,8-9")


class Garbled:
    """A TLS server in front of slurmrestd that falls out of TLS once a submission has been answered."""

    def __init__(self, target: str, folder: Path) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._context = server_context(folder / "ca.pem", folder / "key.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._relay(self._listener.accept()[0])

    def _relay(self, plain: socket.socket) -> None:
        with self._context.wrap_socket(plain, server_side=True) as tls:
            request = b""
            while b"\r\n\r\n" not in request:
                request += tls.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            while length and len(body) < int(length[1]):
                body += tls.recv(65536)
            with socket.create_connection(self._target, 5) as server:
                server.sendall(head.replace(b"keep-alive", b"close") + b"\r\n\r\n" + body)
                answer = b""
                while chunk := server.recv(65536):
                    answer += chunk
            if head.startswith(b"POST"):
                os.write(tls.fileno(), b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            else:
                tls.sendall(answer)


def test_a_tls_error_after_the_request_makes_the_submission_ambiguous(
    local_cluster: Cluster, tmp_path: Path
) -> None:
    garbled = Garbled(local_cluster.url, tmp_path)
    client = replace(local_cluster, url=garbled.url).client(ca_path=tmp_path / "ca.pem")
    task = Task.model_validate(make_task(local_cluster.user, slurm={"mem": 50, "hold": True}))
    started = datetime.now(UTC)
    with pytest.raises(SlurmAmbiguous):
        client.submit(task, "true", f"slurm-proxy:{task.uuid}", in_a_minute())
    client.close()
    garbled.close()
    honest = local_cluster.client()
    found = honest.search([task.username], started, [f"slurm-proxy:{task.uuid}"]).jobs()
    jobs = [job for job in found if is_tagged(job, task.uuid)]
    assert jobs
    for job in jobs:
        delete(local_cluster, honest, job.job_id)
    honest.close()


def test_an_untrusted_certificate_raises_slurm_unavailable(local_cluster: Cluster, tmp_path: Path) -> None:
    garbled = Garbled(local_cluster.url, tmp_path)
    client = replace(local_cluster, url=garbled.url).client()
    with pytest.raises(SlurmUnavailable, match="cannot be reached"):
        client.find_job(1)
    client.close()
    garbled.close()


class ListsOnly:
    """A session with a slurmctld of very many jobs, whose arrays are PENDING in the list of states."""

    def __init__(self, arrays: int, others: int) -> None:
        self.paths: list[str] = []
        self._states: list[dict[str, Any]] = [
            {"job_id": str(number), "state": ["PENDING"]} for number in range(1, arrays + 1)
        ]
        self._states += [
            {"job_id": str(number), "state": ["COMPLETED"]} for number in range(1001, 1001 + others)
        ]

    def dialect(self) -> Dialect:
        return Dialect("v0.0.42")

    def get(self, path: str, query: Query = (), timeout: float | None = None) -> Reply:
        self.paths.append(path)
        wanted = {str(value) for name, value in query if name == "job_id"}
        if path == "jobs/state":
            return self._reply([item for item in self._states if not wanted or item["job_id"] in wanted])
        states = {"PENDING": "RUNNING", "COMPLETED": "COMPLETED"}
        return self._reply(
            [
                {"job_id": int(item["job_id"]), "user_name": "alice", "job_state": [states[item["state"][0]]]}
                for item in self._states
                if path in ("jobs", f"job/{item['job_id']}")
            ]
        )

    def _reply(self, jobs: list[dict[str, Any]]) -> Reply:
        return Reply(200, {"jobs": jobs, "errors": []}, "")


@pytest.mark.parametrize("arrays", [5, 150, 900])
def test_poll_notices_an_end_however_many_arrays_seem_to_change(arrays: int) -> None:
    session: Any = ListsOnly(arrays, others=5000)
    known = dict.fromkeys(range(1, arrays + 1), JobState.RUNNING) | {1001: JobState.RUNNING}
    client = SlurmClient(session)
    news: dict[int, SlurmJob | None] = {}
    for _ in range(2):
        news |= client.poll(known)
    assert {job_id: job.job_state for job_id, job in news.items() if job} == {1001: JobState.COMPLETED}
    assert "jobs" not in session.paths


class Said:
    """A session that gives set answers, whatever is asked, and keeps what was asked of slurmdbd."""

    def __init__(self, **bodies: Any) -> None:
        self.bodies = {"diag": {"statistics": {"dbd_agent_queue_size": 0}}, **bodies}
        self.asked: list[Query] = []

    def dialect(self) -> Dialect:
        return Dialect("v0.0.42")

    def get(self, path: str, query: Query = (), timeout: float | None = None) -> Reply:
        return Reply(200, self.bodies[path], "")

    def read_accounting(self, query: Query, timeout: float | None = None) -> Reply:
        self.asked.append(query)
        answer = self.bodies["slurmdbd"]
        if isinstance(answer, Exception):
            raise answer
        return Reply(200, answer, "")


def raw_job(job_id: int, state: str, **fields: Any) -> dict[str, Any]:
    return {"job_id": job_id, "user_name": "alice", "job_state": [state], **fields}


def test_a_heterogeneous_job_hides_no_other() -> None:
    """As 24.11 lists its states; each of its parts has an id of its own."""
    states = {"123+0": "COMPLETED", "124+1": "RUNNING", "10": "COMPLETED"}
    session: Any = Said(
        **{
            "jobs/state": {"jobs": [{"job_id": key, "state": [state]} for key, state in states.items()]},
            "job/123": {"jobs": [raw_job(123, "COMPLETED"), raw_job(124, "RUNNING")]},
            "job/10": {"jobs": [raw_job(10, "COMPLETED")]},
        }
    )
    news = SlurmClient(session).poll(dict.fromkeys((10, 123, 124), JobState.RUNNING))
    assert {job_id: job and job.job_state for job_id, job in news.items()} == {
        10: JobState.COMPLETED,
        123: JobState.COMPLETED,
    }


def test_the_last_run_of_a_requeued_job_is_the_one_that_slurmdbd_describes() -> None:
    """As 24.11 and 26.05 list both runs, in either order."""
    runs = [
        {
            "job_id": 5,
            "user": "alice",
            "state": {"current": ["FAILED"]},
            "time": {"submission": 1_800_000_000},
        },
        {
            "job_id": 5,
            "user": "alice",
            "state": {"current": ["PENDING"]},
            "time": {"submission": 1_800_000_009},
        },
    ]
    for order in (runs, runs[::-1]):
        session: Any = Said(slurmdbd={"jobs": order})
        found = SlurmClient(session).read_accounting([5])
        assert found is not None
        assert found[5].job_state is JobState.PENDING


def test_the_tasks_of_an_older_array_with_the_same_id_are_not_counted() -> None:
    """As slurmdbd of 22.05 lists them after a job id was used again."""

    def task(job_id: int, index: int, state: str, submitted: int) -> dict[str, Any]:
        array = {"job_id": 5, "task_id": {"set": True, "number": index}}
        times = {"submission": submitted}
        return {
            "job_id": job_id,
            "user": "alice",
            "state": {"current": [state]},
            "array": array,
            "time": times,
        }

    older = [task(10 + index, index, "FAILED", 1_700_000_000) for index in range(5)]
    newer = [task(5, 1, "COMPLETED", 1_800_000_000), task(6, 0, "COMPLETED", 1_800_000_000)]
    session: Any = Said(slurmdbd={"jobs": [*older, *newer]})
    since = datetime.fromtimestamp(1_799_999_000, UTC)
    found = SlurmClient(session).read_accounting([5], not_before={5: since})
    assert found is not None
    assert (found[5].job_state, found[5].array_tasks) == (JobState.COMPLETED, {JobState.COMPLETED: 2})


def test_a_slurmdbd_that_has_answered_is_away_where_a_proxy_answers_404() -> None:
    class Proxied(Said):
        def read_accounting(self, query: Query, timeout: float | None = None) -> Reply:
            return Reply(404, {}, "404 page not found") if self.asked else super().read_accounting(query)

    session: Any = Proxied(slurmdbd={"jobs": []})
    client = SlurmClient(session)
    assert client.read_accounting([5]) == {}
    with pytest.raises(SlurmUnavailable):
        client.read_accounting([5])


def test_a_404_of_a_proxy_is_no_proof_that_a_job_is_gone() -> None:
    class Proxied(Said):
        def get(self, path: str, query: Query = (), timeout: float | None = None) -> Reply:
            return Reply(404, {"message": "no Route matched with those values"}, "")

    session: Any = Proxied()
    with pytest.raises(SlurmUnavailable):
        SlurmClient(session).read_jobs([5])


@pytest.mark.parametrize("written", ["SPECIAL_EXIT", ["PENDING", "SPECIAL_EXIT"]])
def test_a_job_that_is_held_after_its_exit_has_no_start_and_no_end(written: Any) -> None:
    """As 22.05 and 24.11 write it; both times are predictions then."""
    raw = {**raw_job(5, ""), "job_state": written, "start_time": 1_800_000_000, "end_time": 1_800_003_600}
    session: Any = Said(**{"job/5": {"jobs": [raw]}})
    job = SlurmClient(session).read_jobs([5])[5]
    assert job is not None
    assert (job.job_state, job.start_time, job.end_time) == (JobState.SPECIAL_EXIT, None, None)


@pytest.mark.parametrize("others", [0, 40])
@pytest.mark.parametrize(
    "odd", [{"state": ["NOVEL"]}, {"state": None}, {}, {"job_id": "?", "state": ["RUNNING"]}]
)
def test_an_unreadable_job_hides_no_other_job(
    odd: dict[str, Any], others: int, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [10, *range(100, 100 + others)]
    jobs = [raw_job(7, "NOVEL"), *(raw_job(job_id, "COMPLETED") for job_id in ids)]
    listed = [{"job_id": str(job_id), "state": ["COMPLETED"]} for job_id in ids]
    single = {f"job/{job['job_id']}": {"jobs": [job]} for job in jobs}
    bodies = {"jobs/state": {"jobs": [{"job_id": "7", **odd}, *listed]}, "jobs": {"jobs": jobs}, **single}
    session: Any = Said(**bodies)
    client = SlurmClient(session)
    for _ in range(3):
        assert client.poll(dict.fromkeys((7, *ids), JobState.RUNNING)).keys() == set(ids)
    warned = [record.message for record in caplog.records if record.name == "app.slurm.answers"]
    assert len(warned) == len(set(warned)), "each fault is logged once"
    with pytest.raises(SlurmMisbehaved, match="job 7 cannot be read"):
        client.find_job(7)


@pytest.mark.parametrize(("status", "number"), [(403, 1), (500, 1), (500, 1800), (503, 0)])
def test_an_error_while_slurmctld_is_down_is_no_refusal_to_cancel(status: int, number: int) -> None:
    """As 24.11 and 26.05 answer while slurmctld is down."""

    class Silent(Said):
        max_call_seconds = 36.0

        def send(self, request: SlurmRequest) -> Reply:
            fault = {"error_number": number, "error": "Operation not permitted"}
            return Reply(status, {"errors": [fault]}, "")

    session: Any = Silent()
    control = SlurmClient(session).control
    for change in (control.cancel, control.hold, control.release, control.requeue):
        with pytest.raises(SlurmUnavailable, match=r"it is unknown whether Slurm has \w+ job 5;"):
            change(5, "alice")
    with pytest.raises(SlurmUnavailable):
        control.cancel_many([5], "alice")


def test_slurmdbd_is_asked_for_all_since_then_by_a_clock_that_may_be_behind() -> None:
    session: Any = Said(**{"jobs/state": {"jobs": []}, "slurmdbd": {"jobs": []}})
    since = datetime.fromtimestamp(1_800_000_000.5, UTC)
    client = SlurmClient(session, clock_skew=90)
    assert client.search(["alice"], since, ["slurm-proxy:x"]).accounting is AccountingState.CURRENT
    (query,) = session.asked
    assert dict(query)["start_time"] == session.dialect().timestamp(1_799_999_910)


@pytest.mark.parametrize(
    "answer", [{}, {"jobs": None}, {"jobs": {}}, SlurmMisbehaved("the token"), SlurmUnavailable("away")]
)
def test_an_unusable_answer_of_slurmdbd_proves_nothing(answer: Any) -> None:
    session: Any = Said(
        **{
            "jobs/state": {"jobs": [{"job_id": "5", "state": ["RUNNING"]}]},
            "job/5": {"jobs": [raw_job(5, "RUNNING", comment="slurm-proxy:x")]},
            "slurmdbd": answer,
        }
    )
    seen = SlurmClient(session).search(["alice"], datetime.now(UTC), ["slurm-proxy:x"])
    assert [job.job_id for job in seen.jobs()] == [5]
    assert seen.accounting is AccountingState.AWAY


def test_a_closed_port_raises_slurm_unavailable() -> None:
    client = Cluster("none", "http://127.0.0.1:9", b"x" * 32, "a", "b").client(connect_timeout=0.5)
    with pytest.raises(SlurmUnavailable, match="slurmrestd cannot be reached"):
        client.submit(Task.model_validate(make_task()), "true", new_uuid(), in_a_minute())
    client.close()


def test_a_missing_socket_raises_slurm_unavailable() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the adapter leaves such a socket to the collector
        client = Cluster("none", "unix:///nowhere/rest.sock", b"x" * 32, "a", "b").client()
        with pytest.raises(SlurmUnavailable, match="cannot be reached"):
            client.submit(Task.model_validate(make_task()), "true", new_uuid(), in_a_minute())
        client.close()
        gc.collect()


# --- what takes its time: started with the first test on a cluster, looked at here -------------


@cache
def early_jobs(cluster: Cluster) -> dict[str, int]:
    client = cluster.client()
    jobs = {
        "long": submit(cluster, client, "sleep 600", time_minutes=1),
        "good": submit(cluster, client),
        "bad": submit(cluster, client, "exit 3"),
    }
    client.close()
    return jobs


def test_slurmdbd_knows_the_jobs_that_slurmctld_has_forgotten(cluster: Cluster, client: SlurmClient) -> None:
    good, bad = early_jobs(cluster)["good"], early_jobs(cluster)["bad"]
    until(
        lambda: client.poll({good: JobState.COMPLETED, bad: JobState.FAILED}) == {good: None, bad: None},
        cluster.min_job_age * 4 + 20,
        "that slurmctld forgets",
    )
    found = client.read_accounting([good, bad, 4_000_000])
    assert found is not None
    assert found.keys() == {good, bad}
    assert (found[good].job_state, found[good].exit_code) == (JobState.COMPLETED, 0)
    assert found[bad].job_state is JobState.FAILED
    assert found[bad].exit_code in (3, None), "None where slurmdbd does not know, never 0"
    assert found[bad].username == cluster.user
    assert client.find_job(bad) == found[bad]


def test_a_time_limit_ends_a_job(cluster: Cluster, client: SlurmClient) -> None:
    job = ended(client, early_jobs(cluster)["long"], 30 + 100 * cluster.minute / 60)
    assert job.job_state is JobState.TIMEOUT


def test_a_cluster_reports_its_partitions_and_the_cpus_that_a_job_takes(
    cluster: Cluster, client: SlurmClient
) -> None:
    def debug() -> Partition:
        (found,) = (partition for partition in client.read_partitions() if partition.name == "debug")
        return found

    job_id = submit(cluster, client, "sleep 60", time_minutes=2)
    wait_for(client, job_id, JobState.RUNNING)
    found = debug()
    delete(cluster, client, job_id)
    assert (found.state, found.available_nodes) == ("UP", found.total_nodes)
    assert 0 <= found.free_cpus < found.total_cpus  # others may use the cluster, too


def test_a_healthy_cluster_has_no_faults_and_a_wrong_key_is_told_from_an_outage(
    cluster: Cluster, client: SlurmClient
) -> None:
    assert client.check_health() == SlurmHealth(has_accounting=True)
    assert client.token_fault is None
    stranger = replace(cluster, key=b"another key, which the cluster does not accept").client()
    try:
        for _ in range(5):  # 22.05 opens the circuit breaker, because it gives no reason
            health = stranger.check_health()
            assert "does not accept this service's token" in (health.key_fault or "")
            assert health.accounting_fault is None
        assert stranger.token_fault == health.key_fault
    finally:
        stranger.close()
