"""Requests that wait for an answer when Slurm is found to be down, over real sockets."""

import socket
import threading
import time
from pathlib import Path

import pytest

from app.errors import SlurmProxyError, SlurmReadAborted
from app.slurm.connection import Connection
from app.slurm.request import SlurmRequest
from tests.conftest import until
from tests.support.scripted_server import Scripted, replying, with_length

JOB = SlurmRequest("GET", "/slurm/v0.0.42/job/1", user="alice")


class Waiting:
    """A request that a thread of its own makes."""

    def __init__(self, connection: Connection, request: SlurmRequest) -> None:
        self.error: SlurmProxyError | None = None
        self._arguments = connection, request
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, request = self._arguments
        try:
            connection.send(request)
        except SlurmProxyError as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(30)


class Silent:
    """A script that reads a request and answers nothing until it is released."""

    def __init__(self) -> None:
        self.received = threading.Semaphore(0)
        self.released = threading.Event()

    def __call__(self, client: socket.socket) -> None:
        self.received.release()
        self.released.wait(30)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_a_read_from_slurmctld_ends_when_reads_are_aborted(kind: str, tmp_path: Path) -> None:
    silent = Silent()
    with Scripted(kind, tmp_path, silent) as server:
        connection = server.connection(read_timeout=30)
        waiting = Waiting(connection, JOB)
        assert silent.received.acquire(timeout=10)
        connection.abort_reads()
        until(lambda: waiting.is_over, 10, "the end of the request")
        silent.released.set()
        connection.close()
    assert type(waiting.error) is SlurmReadAborted
    assert "because of an outage" in str(waiting.error)


@pytest.mark.parametrize(
    "sent",
    [
        SlurmRequest("POST", "/slurm/v0.0.42/job/submit", user="alice", body={}),
        SlurmRequest("GET", "/slurmdb/v0.0.42/jobs", user="alice"),
    ],
)
def test_submissions_and_reads_from_slurmdbd_go_on(sent: SlurmRequest, tmp_path: Path) -> None:
    silent = Silent()

    def answer_late(client: socket.socket) -> None:
        silent(client)
        replying(with_length(b"{}"))(client)

    with Scripted("tcp", tmp_path, answer_late) as server:
        connection = server.connection(read_timeout=30)
        waiting = Waiting(connection, sent)
        assert silent.received.acquire(timeout=10)
        connection.abort_reads()
        time.sleep(0.1)
        assert not waiting.is_over
        silent.released.set()
        waiting.join()
        connection.close()
    assert waiting.error is None


def test_a_read_that_has_ended_is_not_aborted_in_place_of_the_next_one(tmp_path: Path) -> None:
    with Scripted("tcp", tmp_path, replying(with_length(b"{}"))) as server:
        connection = server.connection()
        assert connection.send(JOB).status == 200
        connection.abort_reads()
        assert connection.send(JOB).status == 200
        connection.close()
