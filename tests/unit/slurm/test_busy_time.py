"""Measure for how long Slurm is busy with our requests."""

import time
from contextlib import closing, suppress
from pathlib import Path

from app.errors import SlurmUnavailable
from app.slurm.busy_time import BusyTime
from app.slurm.request import SlurmRequest
from tests.support.scripted_server import Scripted, with_length


def test_requests_at_the_same_time_count_once() -> None:
    now = [0.0]
    busy = BusyTime(lambda: now[0])
    with busy:
        now[0] = 1.0
        with busy:
            now[0] = 3.0
            assert busy.seconds == 3.0
        now[0] = 4.0
    now[0] = 10.0
    with busy:
        now[0] = 11.0
    now[0] = 20.0
    assert busy.seconds == 5.0


def test_connection_counts_the_time_until_the_answer_has_come(tmp_path: Path) -> None:
    def answer(client: object) -> None:
        time.sleep(0.1)
        client.sendall(with_length(b"{}"))  # type: ignore[attr-defined]

    with Scripted("tcp", tmp_path, answer) as server, closing(server.connection()) as connection:
        connection.send(SlurmRequest("GET", "/a", user="alice"))
        assert connection.busy_time.seconds >= 0.1


def test_connection_counts_a_request_that_gets_no_answer(tmp_path: Path) -> None:
    with (
        Scripted("tcp", tmp_path, lambda _: time.sleep(1)) as server,
        closing(server.connection()) as connection,
    ):
        with suppress(SlurmUnavailable):
            connection.send(SlurmRequest("GET", "/a", user="alice"))
        assert connection.busy_time.seconds >= 0.1
        before = connection.busy_time.seconds
        assert connection.busy_time.seconds == before, "the clock has stopped"
