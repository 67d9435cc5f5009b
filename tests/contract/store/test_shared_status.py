"""What all processes know of Slurm, in every store."""

from datetime import timedelta

from app.store import TaskStore
from app.store.shared_status import OutageReport, SharedStatus
from tests.support.stores import LATER, NOW, Factory

SECOND = timedelta(seconds=1)
DOWN = OutageReport("slurmctld is down", NOW, NOW + 10 * SECOND)


def test_an_empty_store_knows_nothing(store: TaskStore) -> None:
    assert store.read_shared_status(NOW) == SharedStatus(None, {})


def test_every_process_reads_the_beginning_of_the_last_complete_poll(factory: Factory) -> None:
    leader, other = factory(), factory()
    leader.acquire_lease("a", NOW, LATER)
    assert other.read_shared_status(NOW).polled_at is None
    leader.update_leader_report("a", {"polled_at": NOW.isoformat()})
    assert other.read_shared_status(NOW).polled_at == NOW
    other.update_leader_report("b", {"polled_at": LATER.isoformat()})
    assert other.read_shared_status(NOW).polled_at == NOW, "only the leader reports its polls"


def test_every_process_reads_which_jobs_the_last_poll_did_not_cover(factory: Factory) -> None:
    leader, other = factory(), factory()
    leader.acquire_lease("a", NOW, LATER)
    leader.update_leader_report("a", {"polled_at": NOW.isoformat(), "uncovered": [7, 9]})
    assert other.read_shared_status(NOW).uncovered == {7, 9}
    leader.update_leader_report("a", {"polled_at": LATER.isoformat(), "uncovered": []})
    assert other.read_shared_status(NOW) == SharedStatus(LATER)


def test_every_process_reads_the_outages_that_others_report(factory: Factory) -> None:
    one, other = factory(), factory()
    one.report_outage("host.one:1", DOWN, NOW)
    later = OutageReport("slurmrestd answered 502", LATER, LATER + SECOND)
    other.report_outage("host.two:2", later, NOW)
    assert one.read_shared_status(NOW).outages == {"host.one:1": DOWN, "host.two:2": later}
    one.withdraw_outage("host.one:1")
    one.withdraw_outage("host.one:1")
    assert other.read_shared_status(NOW).outages == {"host.two:2": later}


def test_a_report_ends_unless_it_is_renewed(store: TaskStore) -> None:
    store.report_outage("a", DOWN, NOW)
    assert store.read_shared_status(DOWN.until).outages == {"a": DOWN}
    assert store.read_shared_status(DOWN.until + SECOND).outages == {}
    renewed = OutageReport(DOWN.reason, DOWN.since, DOWN.until + 10 * SECOND)
    store.report_outage("a", renewed, NOW)
    assert store.read_shared_status(DOWN.until + SECOND).outages == {"a": renewed}


def test_reports_that_have_ended_are_deleted_by_the_next_report(store: TaskStore) -> None:
    assert store.acquire_lease("leader", NOW, NOW + SECOND) == 1
    store.report_outage("a", DOWN, NOW)
    store.report_outage("b", OutageReport("down", LATER, LATER + SECOND), LATER)
    assert set(store.read_shared_status(NOW).outages) == {"b"}
    assert store.acquire_lease("leader", LATER, LATER + SECOND) == 1, "the lease stays"


def test_a_reported_outage_leaves_the_lease_alone(store: TaskStore) -> None:
    store.report_outage("a", DOWN, NOW)
    assert store.read_lease() is None
    assert store.acquire_lease("a", NOW, LATER) == 1
    store.release_lease("a")
    assert store.read_shared_status(NOW).outages == {"a": DOWN}
