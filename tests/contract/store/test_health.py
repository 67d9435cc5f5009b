"""Reports of processes, and the figures of operators, in every store."""

from datetime import timedelta

from app.job_state import JobState
from app.models.record import NotificationStatus
from app.store import TaskStore
from app.store.health import Backlog, DueMessages, ProcessReport
from app.store.notification_queue import Outcome
from tests.support.stores import LATER, NOW, Factory, claim, make_notification, make_record, make_running


def test_a_report_replaces_the_last_one_of_its_name_for_all_processes(factory: Factory) -> None:
    one, other = factory(), factory()
    for number, store in enumerate((one, other, one)):
        store.write_report(ProcessReport("a", "here", NOW, {"n": [number, None, 1.5]}), 2)
    one.write_report(ProcessReport("b", "here", LATER, {}), 2)
    one.write_report(ProcessReport("c", "elsewhere", LATER, {}), 2)
    assert other.list_reports("here", NOW) == [
        ProcessReport("a", "here", NOW, {"n": [2, None, 1.5]}),
        ProcessReport("b", "here", LATER, {}),
    ]
    assert [report.name for report in other.list_reports("here", LATER)] == ["b"]
    other.delete_report("b")
    assert one.list_reports("here", LATER) == []


def test_reports_of_a_day_ago_are_deleted(store: TaskStore) -> None:
    day = timedelta(days=1)
    store.write_report(ProcessReport("old", "here", NOW, {}), 2)
    store.write_report(ProcessReport("new", "here", NOW + day, {}), 2)
    assert len(store.list_reports("here", NOW)) == 2
    store.write_report(ProcessReport("new", "here", NOW + day + timedelta(seconds=1), {}), 2)
    assert [report.name for report in store.list_reports("here", NOW)] == ["new"]


def test_the_leaders_report_stands_beside_the_lease_and_outlives_its_leader(factory: Factory) -> None:
    one, other = factory(), factory()
    assert one.read_lease() is None
    minute = timedelta(minutes=1)
    fence = one.acquire_lease("a", NOW, NOW + minute)
    one.update_leader_report("a", {"finished_at": NOW.isoformat(), "seconds": 1.5, "fault": "x"})
    one.update_leader_report("a", {"fault": None, "has_accounting": False})
    other.update_leader_report("b", {"fault": "b does not lead"})
    lease = other.read_lease()
    assert lease is not None
    assert (lease.owner, lease.until, lease.fence) == ("a", NOW + minute, fence)
    assert (lease.report.finished_at, lease.report.seconds) == (NOW, 1.5)
    assert (lease.report.fault, lease.report.has_accounting) == (None, False)
    assert lease.is_held(NOW)
    assert not lease.is_held(NOW + 2 * minute)
    one.release_lease("a")
    other.acquire_lease("b", NOW, NOW + minute)
    assert (one.read_lease() or lease).report == lease.report


def test_an_empty_store_has_no_backlog_and_no_counts(store: TaskStore) -> None:
    assert store.measure_backlog(NOW) == Backlog()
    assert store.count_tasks() == {}
    assert store.count_notifications() == {}


def test_the_backlog_has_reservations_due_messages_and_dead_letters(store: TaskStore) -> None:
    early = NOW - timedelta(hours=1)
    store.add_record(make_record(created_at=early))
    store.add_record(make_record())
    failed = make_record(created_at=early)
    store.add_record(failed)
    store.fail_reservation(failed, "refused", NOW)
    messages = (
        make_notification(attempt_after=early),
        make_notification(),
        make_notification("slack", status=NotificationStatus.RETRYING, attempt_after=LATER),
        make_notification("slack", status=NotificationStatus.SENT, attempt_after=None),
    )
    store.add_record(make_running(notifications=messages))
    dead = make_notification("rabbitmq", created_at=early)
    store.add_record(make_running(notifications=(dead,)))
    mine = claim(store, method="rabbitmq")
    assert mine is not None
    store.settle(mine, Outcome(NotificationStatus.DEAD, NOW, error="no such queue"))
    assert store.measure_backlog(NOW) == Backlog(
        reservations=2,
        oldest_reservation_at=early,
        due={"email": DueMessages(2, early)},
        dead=1,
        newest_dead_at=early,
    )
    assert store.measure_backlog(LATER).due["slack"] == DueMessages(1, LATER)
    assert store.count_notifications() == {
        ("email", "due"): 2,
        ("slack", "retrying"): 1,
        ("rabbitmq", "dead"): 1,
    }
    assert store.count_tasks() == {"none": 3, "RUNNING": 2}


def test_a_claim_that_has_expired_is_due_again(store: TaskStore) -> None:
    store.add_record(make_running(notifications=(make_notification(),)))
    assert claim(store) is not None
    assert store.measure_backlog(NOW).due == {}
    minute = timedelta(minutes=1)
    assert store.measure_backlog(NOW + minute).due == {"email": DueMessages(1, NOW + minute)}


def test_tasks_are_counted_by_state(store: TaskStore) -> None:
    for state in (JobState.RUNNING, JobState.RUNNING, JobState.FAILED):
        store.add_record(make_running(slurm_job_state=state))
    assert store.count_tasks() == {"RUNNING": 2, "FAILED": 1}
