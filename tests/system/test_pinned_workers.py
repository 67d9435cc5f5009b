"""The processor of each worker of gunicorn."""

import os
import signal
from pathlib import Path

from tests.conftest import until
from tests.support.gunicorn import Gunicorn

ALLOWED = os.sched_getaffinity(0)


def list_processors(server: Gunicorn) -> list[set[int]]:
    """Return the processors that each worker may use."""
    return [os.sched_getaffinity(worker) for worker in server.list_workers()]


def are_spread(processors: list[set[int]]) -> bool:
    """Return whether each of two workers has one processor, a different one if there are two."""
    return [len(one) for one in processors] == [1, 1] and len(set.union(*processors)) == min(2, len(ALLOWED))


def test_each_worker_uses_one_processor_also_after_a_reload_and_a_crash(tmp_path: Path) -> None:
    with Gunicorn(tmp_path, {}, "", GUNICORN_WORKERS="2") as server:
        until(lambda: are_spread(list_processors(server)), 30, "a processor for each worker")
        server.reload("the settings were read again")
        until(lambda: are_spread(list_processors(server)), 30, "a processor for each new worker")
        first, second = server.list_workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: len(set(server.list_workers()) - {first, second}) == 1, 30, "another worker")
        until(lambda: are_spread(list_processors(server)), 30, "a processor for the other worker")


def test_workers_use_all_processors_if_the_operator_wants_it(tmp_path: Path) -> None:
    with Gunicorn(tmp_path, {}, "", GUNICORN_WORKERS="2", GUNICORN_PIN_WORKERS="false") as server:
        until(lambda: len(server.list_workers()) == 2, 30, "two workers")
        assert list_processors(server) == [ALLOWED, ALLOWED]
