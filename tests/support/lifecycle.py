"""The use cases on a real embedded store and a cluster in memory."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from app.errors import (
    SlurmAmbiguous,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.deliver import Delivery
from app.lifecycle.look_up import TaskLookup
from app.lifecycle.poll import Poller
from app.lifecycle.present_facts import PresentFacts
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.register_job import JobRegistration
from app.lifecycle.report_health import HealthReporter
from app.lifecycle.reservations import Reservations
from app.lifecycle.resubmit import Resubmission
from app.lifecycle.retry_policy import DeliveryPolicy
from app.lifecycle.shared_status import StatusReader
from app.lifecycle.state_subscriptions import StateSubscriptions
from app.lifecycle.submit import TaskSubmitter
from app.lifecycle.validation import RequestValidator
from app.lifecycle.wait import TaskWaiting
from app.messages.plan import Planner
from app.models.caller import OPERATOR
from app.models.catalogue_entry import CatalogueEntry
from app.models.record import TaskRecord, utc_now
from app.monitor import Monitor, MonitorTiming
from app.senders import find_channel
from app.slurm.client import SlurmClient
from app.slurm.request_budget import RequestBudget
from app.store.sqlite import SqliteStore
from tests.support.answers import body_of
from tests.support.fakes import FakeSlurm, RecordingSender
from tests.support.tasks import make_task

CATALOGUE = {
    "generic": CatalogueEntry(requires_command=True),
    "echo_hello_world": CatalogueEntry.model_validate(
        {
            "cmd": "echo",
            "default_params": ["hello"],
            "notification": {
                "methods": ["test"],
                "params": {"test": {"subject": "canned"}, "email": {"sender": "op@example.com"}},
            },
        }
    ),
}


MINUTE = timedelta(minutes=1)


LIFE = timedelta(seconds=96)


POLICY = DeliveryPolicy(claim_timeout=3 * MINUTE, retry_window=timedelta(days=1))


class Service:
    """The use cases put together as app/services.py does it, on fakes where the network would be."""

    def __init__(self, path: Path, policy: DeliveryPolicy = POLICY, cluster: FakeSlurm | None = None) -> None:
        self.store = SqliteStore(path)
        self.store.prepare()
        self.slurm = cluster or FakeSlurm()
        self.email = RecordingSender(rate_limited=True)
        self.test = RecordingSender()
        senders: Any = {"email": self.email, "test": self.test}
        slurm = self.client = cast(SlurmClient, self.slurm)
        planner = Planner(CATALOGUE, senders, find_channel)
        self.clocks = ClockGuard(slurm, MINUTE)
        validator = RequestValidator(CATALOGUE, {"root", "slurm"})
        self.reservations = Reservations(self.store, slurm, self.clocks)
        self.submitter = TaskSubmitter(
            self.store, slurm, planner, validator, self.reservations, submission_life=LIFE
        )
        self.resubmission = Resubmission(self.store, self.submitter)
        self.registration = JobRegistration(self.store, slurm, planner, validator)
        self.status = StatusReader(self.store)
        self.lookup = TaskLookup(
            self.store,
            PresentFacts(slurm, RequestBudget(5), now=self.store.now),
            lambda: self.status.last_poll,
        )
        self.subscriptions = StateSubscriptions(self.store, interval=0.02)
        self.waiting = TaskWaiting(self.subscriptions)
        self.poller = Poller(self.store, slurm, planner, unknown_after=10 * MINUTE)
        self.reconciler = Reconciler(
            self.store,
            slurm,
            planner,
            submission_life=LIFE,
            skew=MINUTE,
            min_job_age=5 * MINUTE,
            pause=timedelta(0),
        )
        self.delivery = Delivery(self.store, senders, policy, methods=["email", "test"], jitter=lambda: 1.0)
        self.monitor = self.new_monitor("here")

    def new_monitor(self, owner: str, interval: float = 1) -> Monitor:
        return Monitor(
            self.store,
            self.reservations,
            self.poller,
            self.reconciler,
            self.delivery,
            self.clocks,
            MonitorTiming(interval=interval, min_pause=interval, lease=30, cycle_limit=60),
            HealthReporter(self.store, self.client),
            owner=owner,
            on_change=self.subscriptions.read_soon,
        )

    def submit(self, **fields: Any) -> tuple[dict[str, Any], int]:
        task = make_task(**fields)
        return task, int(self.submitter.submit(OPERATOR, {"task": task}).slurm_job_id)

    def record(self, task: dict[str, Any]) -> TaskRecord:
        return self.store.find_by_uuids([task["uuid"]])[task["uuid"]]

    def move(self, job_id: int, state: JobState, **fields: Any) -> None:
        self.slurm.put(job_id, state, **fields)
        self.refresh(utc_now())

    def refresh(self, at: datetime) -> int:
        return self.poller.poll_once(at, self.fence())

    def reconcile(self, at: datetime) -> None:
        self.slurm.clock = lambda: at
        self.reconciler.reconcile(at, self.fence())

    def fence(self) -> int:
        fence = self.store.acquire_lease("here", utc_now(), utc_now() - MINUTE)
        assert fence is not None
        return fence

    def deliver(self, at: datetime | None = None) -> None:
        for method in self.delivery.methods:
            self.monitor.deliver(method, at or utc_now())


def left_open(service: Service, *, exists: bool, **fields: Any) -> dict[str, Any]:
    """A task whose submission got no answer, at a time when nothing could be looked up."""
    task = make_task(**fields)
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), exists
    service.slurm.down = SlurmUnavailable("and slurmctld went away")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task})
    service.slurm.down = None
    return task


def watch(service: Service, job_id: int, **fields: Any) -> dict[str, Any]:
    task = {"username": "alice", "uuid": make_task()["uuid"], **fields.pop("task", {})}
    monitor = {"task": task, "slurm_job_id": job_id, **fields}
    return body_of(service.registration.register(OPERATOR, {"monitor": monitor}))
