"""Many requests that wait, on gunicorn and on the development server, each a process of its own."""

import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.support.waiting import COMMANDS, CountingCluster, Waiter, WaitingServer

pytestmark = pytest.mark.timed

MANY = 200
SOON = 1.0  # seconds at the median; milliseconds are usual, but the machine may be busy
TIMEOUT = 30  # seconds in which a client may send its request
NewServer = Callable[..., WaitingServer]


@pytest.fixture(scope="module")
def slurm() -> Iterator[CountingCluster]:
    cluster = CountingCluster()
    cluster.url = cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def new_server(tmp_path: Path, slurm: CountingCluster) -> Iterator[NewServer]:
    made: list[WaitingServer] = []

    def new(command: str, **settings: str) -> WaitingServer:
        made.append(WaitingServer(tmp_path, COMMANDS[command], slurm.url, **settings))
        return made[-1]

    yield new
    for server in made:
        server.kill()
        assert "Traceback" not in server.log.read_text()


def count_answers(waiters: list[Waiter]) -> int:
    return sum(waiter.has_answer() for waiter in waiters)


@pytest.mark.parametrize("command", COMMANDS)
def test_200_waiting_requests_delay_no_others_and_cost_slurm_nothing(
    new_server: NewServer, slurm: CountingCluster, command: str
) -> None:
    server = new_server(command, LIMIT_CONNECTIONS="480", GUNICORN_THREADS="8")
    task = server.submit()
    with server.waiting(task, MANY) as waiters:
        until(lambda: server.count_threads() > MANY, 30, "a thread for each request")
        until(lambda: slurm.readings[task["slurm_job_id"]], 30, "the first reading of the poller")
        time.sleep(1)
        assert count_answers(waiters) == 0
        slurm.readings.clear()
        pings = [server.measure_seconds("GET", "/ping") for _ in range(20)]
        assert statistics.median(pings) < SOON
        submissions = []
        for _ in range(10):
            began = time.monotonic()
            server.submit()
            submissions.append(time.monotonic() - began)
        assert statistics.median(submissions) < SOON
        assert slurm.readings[task["slurm_job_id"]] == 0, slurm.readings
        assert max(slurm.readings.values(), default=0) <= 1, "the poller reads each new job once"
        slurm.readings.clear()
        server.cancel(task)
        for waiter in waiters:
            response, answer = waiter.read_answer()
            assert response.status == 200
            assert answer["monitor"]["ended"]
            assert "Retry-After" not in response.headers
        # The cancellation and the poller read the job a few times, however many requests wait for it.
        assert 1 <= max(slurm.readings.values()) <= 8, slurm.readings


@pytest.mark.parametrize("command", COMMANDS)
def test_requests_beyond_half_of_the_threads_are_answered_at_once(
    new_server: NewServer, command: str
) -> None:
    server = new_server(command, LIMIT_CONNECTIONS="64")
    task = server.submit()
    with server.waiting(task, 32) as first:
        until(lambda: server.count_threads() > 32, 30, "a thread for each request")
        time.sleep(1)
        with server.waiting(task, 20) as others:
            for waiter in others:
                response, answer = waiter.read_answer()
                assert response.status == 200
                assert not answer["monitor"]["ended"]
                assert 1 <= int(response.headers["Retry-After"]) <= 10
        assert count_answers(first) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_slow_clients_beside_waiting_ones_do_not_stop_the_server(new_server: NewServer, command: str) -> None:
    server = new_server(command, LIMIT_CONNECTIONS="64", CLIENT_REQUEST_TIMEOUT_SECONDS=str(TIMEOUT))
    task = server.submit()
    with server.waiting(task, 32) as waiters, ExitStack() as stack:
        time.sleep(1)
        for _ in range(60):  # together they would fill the table
            slow = stack.enter_context(socket.create_connection(server.address, 10))
            slow.sendall(b"GET /ping HTTP/1.1\r\n")
        for _ in range(5):
            assert server.measure_seconds("GET", "/ping") < TIMEOUT / 2
        assert count_answers(waiters) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_clients_that_hang_up_leave_nothing_behind(new_server: NewServer, command: str) -> None:
    server = new_server(command, LIMIT_CONNECTIONS="64")
    task = server.submit()
    threads, files = [], []
    for _ in range(3):
        with server.waiting(task, 32) as waiters:
            until(lambda: server.count_connections() == 32, 30, "the connections")
            time.sleep(0.5)
            assert count_answers(waiters) == 0  # all may wait: those of the round before have made room
            threads.append(server.count_threads())
        until(lambda: server.count_connections() == 0, 10, "the end of the connections")
        files.append(server.count_open_files())
    assert threads[2] <= threads[0] + 2
    assert files[2] <= files[0] + 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stop_answers_waiting_requests_with_the_present_state(new_server: NewServer, command: str) -> None:
    server = new_server(command)
    task = server.submit()
    with server.waiting(task, 30) as waiters:
        time.sleep(1)
        assert count_answers(waiters) == 0
        server.process.send_signal(signal.SIGTERM)
        for waiter in waiters:
            response, answer = waiter.read_answer()
            assert (response.status, response.headers["Retry-After"]) == (200, "1")
            assert not answer["monitor"]["ended"]
        assert server.process.wait(10) == 0


def test_a_connection_takes_further_requests_after_a_wait(new_server: NewServer) -> None:
    server = new_server("gunicorn")
    task = server.submit()
    with server.waiting(task, 1, seconds=1) as (waiter,):
        answers: list[Any] = [waiter.read_answer()[1]]
        for _ in range(2):
            waiter.request("GET", f"/monitor/task_uuid/{task['uuid']}?wait=0.5")
            answers.append(waiter.read_answer()[1])
        assert [answer["monitor"]["slurm_job_state"] for answer in answers] == ["PENDING"] * 3
