"""A host that crashes right after a submission: the store loses the acceptance, which was not durable."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import DuplicateUuid, SlurmAmbiguous
from app.job_state import JobState
from app.models.caller import OPERATOR
from app.models.record import utc_now
from tests.support.lifecycle import MINUTE, POLICY, Service
from tests.support.tasks import make_email, make_task

_FILES = ("store.sqlite3", "store.sqlite3-wal")


class CrashingHost:
    """A service whose store can be taken back to the moment at which Slurm has just accepted a job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk = folder / "disk"
        self._disk.mkdir()
        self.service = Service(folder / "store.sqlite3")
        self.service.slurm.on_submit = lambda _: self._copy(folder, self._disk)

    def crash(self) -> Service:
        """Return the service after a start on what was on the disk; no file that is open is touched."""
        self.service.store.close()
        for file in self._folder.glob("store.sqlite3*"):
            file.unlink()
        self._copy(self._disk, self._folder)
        self.service = Service(self._folder / "store.sqlite3", POLICY, self.service.slurm)
        return self.service

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        for name in _FILES:
            shutil.copyfile(source / name, target / name)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[CrashingHost]:
    host = CrashingHost(tmp_path)
    yield host
    host.service.store.close()


def submit(service: Service, task: dict[str, Any]) -> int:
    """Submit with the uuid as the idempotency key."""
    return int(service.submitter.submit(OPERATOR, {"task": task}, task["uuid"]).slurm_job_id)


def test_lost_acceptance_is_an_open_reservation_until_the_job_is_found(host: CrashingHost) -> None:
    task = make_task()
    job_id = submit(host.service, task)
    service = host.crash()
    assert service.record(task).is_reserved
    with pytest.raises(SlurmAmbiguous, match="not known yet"):
        submit(service, task)
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).slurm_job_id == job_id
    assert submit(service, task) == job_id, "the first answer again"
    assert list(service.slurm.jobs) == [job_id]


def test_lost_acceptance_delays_the_message_of_an_end_and_repeats_none(host: CrashingHost) -> None:
    task = make_task(notification=make_email())
    job_id = submit(host.service, task)
    service = host.crash()
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    assert service.email.messages == []
    service.reconcile(utc_now() + MINUTE)
    for _ in range(2):
        service.refresh(utc_now())
        service.deliver()
    assert len(service.email.messages) == 1
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_lost_acceptance_keeps_the_origin_of_a_resubmitted_task(host: CrashingHost) -> None:
    task = make_task()
    host.service.submitter.submit(OPERATOR, {"task": task}, None, resubmitted_from="earlier")
    service = host.crash()
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).resubmitted_from == "earlier"


def test_lost_acceptance_leaves_a_registered_job_recorded(host: CrashingHost) -> None:
    """No tag would bring a registered job back: its record is one durable change."""
    job = host.service.slurm.put(4711, JobState.RUNNING, username="alice")
    task = {"username": "alice", "uuid": "registered"}
    host.service.registration.register(OPERATOR, {"monitor": {"task": task, "slurm_job_id": job.job_id}})
    submit(host.service, make_task())
    assert host.crash().record(task).slurm_job_id == 4711
