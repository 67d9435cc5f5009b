"""The reports of a process: how often they are written, and what a store that hangs shows."""

import threading
from datetime import datetime, timedelta

import pytest

from app.errors import SlurmMisbehaved
from app.lifecycle.report_health import HealthReporter, StoreState, make_process_name
from app.metrics import HTTP_REQUESTS
from app.models.record import utc_now
from app.store.health import ProcessReport
from app.store.sqlite import SqliteStore
from tests.support.lifecycle import MINUTE, Service


def reports_of(service: Service) -> list[ProcessReport]:
    host = make_process_name().rpartition(":")[0]
    return service.store.list_reports(host, utc_now() - MINUTE)


def test_a_report_has_the_metrics_and_is_written_every_few_seconds_at_most(service: Service) -> None:
    times = [0.0]
    reporter = HealthReporter(service.store, service.client, clock=lambda: times[-1])
    for seconds in (0.0, 2.9, 3.0):
        times.append(seconds)
        reporter.metrics.count(HTTP_REQUESTS, "GET", "/ping", "200")
        assert reporter.write_report().fault is None
    (report,) = reports_of(service)
    assert report.name == make_process_name()
    assert report.figures[HTTP_REQUESTS.name] == [[["GET", "/ping", "200"], 3]]
    reporter.delete_report()
    assert reports_of(service) == []


class Hanging(SqliteStore):
    """Does not return from a write until it is told to."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def now(self) -> datetime:
        return utc_now()

    def write_report(self, report: ProcessReport, within: float) -> None:
        self.begun.set()
        assert self.goes_on.wait(10)


def test_a_report_whose_write_hangs_becomes_a_fault_and_blocks_no_caller(service: Service) -> None:
    now = 0.0
    store = Hanging()
    reporter = HealthReporter(store, service.client, clock=lambda: now)
    thread = threading.Thread(target=reporter.write_report)
    thread.start()
    assert store.begun.wait(10)
    now = 2.0
    assert reporter.write_report() == StoreState(None, 0.0)
    now = 4.0
    assert reporter.write_report() == StoreState("the store has not answered for 4 s", 4.0)
    store.goes_on.set()
    thread.join()
    assert reporter.write_report().fault is None


def test_the_leader_reports_a_failed_cycle_beside_the_last_one_that_succeeded(service: Service) -> None:
    service.monitor.run_cycle(service.store.now())
    service.slurm.down = SlurmMisbehaved("no JSON")
    with pytest.raises(SlurmMisbehaved):
        service.monitor.run_cycle(service.store.now() + timedelta(seconds=1))
    lease = service.store.read_lease()
    assert lease is not None
    assert (lease.report.fault, lease.report.finished_at is None) == ("no JSON", False)
    service.slurm.down = None
    service.monitor.run_cycle(service.store.now())
    assert (service.store.read_lease() or lease).report.fault is None
