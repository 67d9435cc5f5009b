"""`GET /metrics`: what one scrape shows of this process, of the others of the host, and of the service."""

import re
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import SlurmRefused, SlurmUnavailable, StoreUnavailable
from app.job_state import JobState
from app.lifecycle.collect_metrics import MetricsCollection
from app.lifecycle.report_health import HealthReporter
from app.metrics import HTTP_REQUESTS, PROCESS_METRICS, STORE_METRICS, TASKS, Kind
from app.models.record import utc_now
from app.store.health import ProcessReport
from app.store.sqlite import SqliteStore
from tests.support.access import Site
from tests.support.tasks import make_email, make_task

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name that have these labels."""
        wanted = labels.items()
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"slurm_proxy_{name}" and wanted <= sample.labels.items()
        )


def scrape(site: Site) -> Scrape:
    answer = site.call("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=")
    return Scrape(answer.text)


def scrape_another(site: Site) -> Scrape:
    """Scrape another process with the same store."""
    other = site.another()
    try:
        return Scrape(other.test_client().get("/metrics").text)
    finally:
        other.extensions["slurm_proxy"].store.close()


def cycle(site: Site) -> None:
    site.services.monitor.run_cycle(site.services.store.now())
    site.services.monitor.check_slurm()


@pytest.fixture
def local(new_site: Callable[..., Site]) -> Site:
    return new_site(ACCESS_METHODS="")


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in (*STORE_METRICS, *PROCESS_METRICS):
        assert re.fullmatch(r"slurm_proxy(_[a-z]+)+", metric.name)
        assert (metric.kind is Kind.COUNTER) is metric.name.endswith("_total")
        assert (metric.kind is Kind.HISTOGRAM) is bool(metric.buckets)
        assert metric.help.endswith(".")
        assert "process" not in metric.labels
    names = [metric.name for metric in (*STORE_METRICS, *PROCESS_METRICS)]
    assert len(set(names)) == len(names)


def test_a_scrape_describes_every_metric(local: Site) -> None:
    found = scrape(local)
    expected = {metric.name.removesuffix("_total") for metric in (*STORE_METRICS, *PROCESS_METRICS)}
    assert found.families.keys() == expected


def test_submissions_are_counted_by_outcome(local: Site) -> None:
    task = make_task()
    assert local.call("POST", "/submit", body={"task": task}).status_code == 200
    local.call("POST", "/submit", body={"task": task})
    local.call("POST", "/submit?dry_run=true", body={"task": make_task()})
    local.slurm.failure = SlurmRefused("no")
    local.submit()
    found = scrape(local)
    assert found.value("submissions_total", outcome="submitted") == 1
    assert found.value("submissions_total", outcome="duplicate_uuid") == 1
    assert found.value("submissions_total", outcome="slurm_refused") == 1
    assert found.value("submissions_total") == found.value("submission_seconds_count") == 3
    assert found.value("submission_seconds_bucket", le="+Inf") == 3
    assert found.value("http_requests_total", route="/submit", method="POST", status="200") == 2


def test_tasks_and_messages_are_counted_in_the_store(local: Site) -> None:
    for state in (JobState.FAILED, JobState.RUNNING):
        job_id = local.submit(notification=make_email()).json["slurm_job_id"]
        local.slurm.put(job_id, state)
    cycle(local)
    found = scrape(local)
    assert found.value("tasks", state="RUNNING") == found.value("tasks", state="FAILED") == 1
    assert found.value("notifications", method="email", status="due") == 1
    assert found.value("due_notifications", method="email") == 1
    assert found.value("leader_present") == found.value("lease_changes_total") == 1
    assert found.value("last_poll_age_seconds") < 10
    assert found.value("poll_seconds_count", outcome="finished") == 1
    assert found.value("part_status", part="store", status="ready") == 1
    assert found.value("store_operation_seconds_count", operation="write") > 5


def test_a_fault_shows_while_a_part_is_down_and_disappears_after_recovery(local: Site) -> None:
    local.slurm.known_down = SlurmUnavailable("away")
    local.services.monitor.run_cycle(local.services.store.now())
    assert scrape(local).value("slurm_circuit_open", client="callers") == 1
    assert scrape(local).value("part_status", part="slurm", status="degraded") == 1
    local.slurm.known_down = None
    assert scrape(local).value("slurm_circuit_open") == 0


def test_requests_over_a_limit_are_counted(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_REQUESTS_PER_MINUTE=1)
    key = site.key()
    assert [site.call("GET", "/whoami", key).status_code for _ in range(3)] == [200, 429, 429]
    assert scrape(site).value("rate_limited_requests_total", code="too_many_requests") == 2


def test_deliveries_are_counted_by_outcome(local: Site) -> None:
    local.slurm.put(local.submit(notification=make_email()).json["slurm_job_id"], JobState.FAILED)
    cycle(local)
    local.services.monitor.deliver("email", local.services.store.now())
    assert scrape(local).value("deliveries_total", method="email", outcome="retrying") == 1
    assert scrape(local).value("notifications", method="email") == 1


def test_one_scrape_shows_all_processes_of_the_host_that_live(local: Site) -> None:
    figures: Any = {HTTP_REQUESTS.name: [[["GET", "/ping", "200"], 7]]}
    store, now = local.services.store, utc_now()
    store.write_report(ProcessReport("host:1", socket.gethostname(), now, figures), 2)
    store.write_report(ProcessReport("elsewhere:1", "elsewhere", now, figures), 2)
    dead = now - timedelta(seconds=61)
    store.write_report(ProcessReport("host:2", socket.gethostname(), dead, figures), 2)
    found = scrape(local)
    assert found.value("http_requests_total", process="host:1", route="/ping") == 7
    assert found.value("http_requests_total", route="/ping") == 7
    assert len({sample.labels["process"] for sample in found.samples if "process" in sample.labels}) == 2


def test_a_report_of_another_release_does_not_break_a_scrape(local: Site) -> None:
    figures: Any = {
        "slurm_proxy_submission_seconds": [[[], [1, 2, 3]]],
        "slurm_proxy_of_the_future_total": [[["x"], 1]],
    }
    store = local.services.store
    store.write_report(ProcessReport("host:1", socket.gethostname(), utc_now(), figures), 2)
    assert scrape(local).value("submission_seconds_count") == 0


def test_counts_are_shared_and_are_not_repeated_at_each_scrape(local: Site) -> None:
    scrape(local)
    local.submit()
    assert [scrape(local).value("tasks"), scrape_another(local).value("tasks")] == [0, 0]
    store = local.services.store
    (counts,) = store.list_reports("*", utc_now() - timedelta(minutes=1))
    for age, seconds, expected in ((6, 0.1, 0), (51, 0.1, 1), (6, 0.001, 1)):
        figures = {"tasks": [], "notifications": [], "seconds": seconds}
        store.write_report(ProcessReport(counts.name, "*", utc_now() - timedelta(seconds=age), figures), 2)
        assert scrape_another(local).value("tasks") == expected, (age, seconds)


def test_while_the_store_is_away_a_scrape_shows_that_and_this_process(local: Site, tmp_path: Path) -> None:
    local.call("GET", "/ping")
    path = tmp_path / "store.sqlite3"
    path.rename(tmp_path / "aside")
    found = scrape(local)
    assert found.value("part_status", part="store", status="not_ready") == 1
    assert found.value("http_requests_total", route="/ping") == 1
    assert found.value("tasks") == 0
    (tmp_path / "aside").rename(path)


def test_made_up_paths_and_methods_make_no_new_series(local: Site) -> None:
    for number in range(3):
        local.client.open(f"/nothing/{number}", method=f"METHOD{number}")
    found = scrape(local)
    assert found.value("http_requests_total", route="none", method="none", status="404") == 3


class Uncountable(SqliteStore):
    """Cannot be counted in time."""

    def count_tasks(self) -> dict[str, int]:
        raise StoreUnavailable("operation exceeded time limit")


def test_a_store_that_is_too_large_to_be_counted_keeps_its_last_counts(local: Site, tmp_path: Path) -> None:
    view = local.services.operator_view
    store = Uncountable(tmp_path / "store.sqlite3")
    collection = MetricsCollection(store, HealthReporter(store, local.slurm), view.readiness)
    figures = {"tasks": [["RUNNING", 7]], "notifications": [], "seconds": 0.001}
    for age, expected in ((0, [7.0]), (6, [7.0])):
        store.write_report(ProcessReport("counts", "*", utc_now() - timedelta(seconds=age), figures), 2)
        found = [value for metric, _, value in collection.collect().service if metric is TASKS]
        assert found == expected
    store.close()
