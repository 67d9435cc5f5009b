"""Two processes with one store: if one of them notices an outage, the other knows it a moment later."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gateway import Fault, Gateway
from tests.conftest import Cluster, until
from tests.support.real.smtp import SmtpServer
from tests.support.service import Service
from tests.support.tasks import make_task

pytestmark = pytest.mark.timed

AT_ONCE = 2.0  # seconds; slurmrestd lets its callers wait for 9 s or more
NOTICED = 5.0


class Pair:
    """Two services on one SQLite file."""

    def __init__(self, stack: ExitStack, folder: Path, cluster: Cluster) -> None:
        self.user = cluster.user
        settings = {
            "TASK_ALLOWED_SERVICE_USERS": cluster.user,
            "SQLITE_PATH": str(folder / "shared.sqlite3"),
        }
        smtp = stack.enter_context(SmtpServer(folder))
        self.services = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            service = stack.enter_context(Service(folder / name, cluster, smtp, **settings))
            service.start()
            self.services.append(service)
        until(lambda: self.codes() == {"ok"}, 60, "submissions that Slurm accepts")

    def submit(self, service: Service) -> tuple[str, float]:
        """Return the code of the answer, and its seconds."""
        began = time.monotonic()
        task = make_task(self.user, cwd="/tmp", slurm={"mem": 10, "hold": True})
        answer: Any = service.post("/submit", {"task": task}).json()
        return answer.get("code", "ok"), time.monotonic() - began

    def codes(self) -> set[str]:
        return {self.submit(service)[0] for service in self.services}

    def require_quick_refusals(self) -> None:
        for _ in range(3):
            for service in self.services:
                code, seconds = self.submit(service)
                assert (code, seconds < AT_ONCE) == ("slurm_unavailable", True), service.log.read_text()

    def stop(self) -> list[str]:
        """Stop both, and return their logs."""
        assert [service.stop() for service in self.services] == [0, 0]
        logs = [service.log.read_text() for service in self.services]
        assert not any("Traceback" in log for log in logs)
        return logs


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_both_processes_notice_an_outage_before_any_caller_has_to_wait(
    stack: ExitStack, local_cluster: Cluster, tmp_path: Path
) -> None:
    """slurmrestd of 24.11 answers requests after 9 s, and a ping at once; the poller's requests show it."""
    gateway = stack.enter_context(Gateway(local_cluster.url, delay=9))
    pair = Pair(stack, tmp_path, replace(local_cluster, url=gateway.url))
    gateway.fail(Fault.CONTROLLER_DOWN)
    time.sleep(NOTICED)
    pair.require_quick_refusals()
    gateway.fail(Fault.NONE)
    until(lambda: pair.codes() == {"ok"}, 15, "the end of the outage in both processes")
    logs = pair.stop()
    assert sum("outage of Slurm begins" in log for log in logs) >= 1


@pytest.mark.real
def test_both_processes_notice_that_slurmctld_has_stopped(
    stack: ExitStack, distribution_cluster: Cluster, tmp_path: Path
) -> None:
    """22.05 tells of it after 9 s, a ping included."""
    slurm = distribution_cluster.real
    assert slurm is not None
    pair = Pair(stack, tmp_path, distribution_cluster)
    slurm.stop_daemon("slurmctld")
    try:
        time.sleep(NOTICED if not slurm.version.startswith("22.") else 15)
        pair.require_quick_refusals()
    finally:
        slurm.start_daemon("slurmctld")
    until(lambda: pair.codes() == {"ok"}, 60, "the end of the outage in both processes")
    pair.stop()
