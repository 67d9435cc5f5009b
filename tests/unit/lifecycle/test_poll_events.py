"""Events of a job before its end: pending for long, unable to start, near its time limit."""

from datetime import timedelta

from app.job_state import JobState
from app.models.caller import OPERATOR
from app.models.record import utc_now
from tests.support.answers import body_of
from tests.support.lifecycle import MINUTE, Service
from tests.support.tasks import make_email


def test_a_job_that_waits_for_long_is_announced_after_one_read(service: Service) -> None:
    wish = {**make_email(), "events": ["end", {"pending_over": 30}]}
    tasks = [service.submit(notification=wish) for _ in range(3)]
    now = utc_now()
    service.slurm.calls.clear()
    assert service.refresh(now + 29 * MINUTE) == 0
    assert service.refresh(now + 31 * MINUTE) == 3
    assert service.refresh(now + 40 * MINUTE) == 0
    assert service.slurm.calls == ["poll", "poll", "read_jobs", "poll"]
    service.deliver(now + 40 * MINUTE)
    assert [message.event for message in service.email.messages] == ["pending_over"] * 3
    assert service.email.messages[0].subject == "[still waiting] the test job has ended"
    task, job_id = tasks[0]
    service.move(job_id, JobState.COMPLETED)
    assert [item.event for item in service.record(task).notifications] == ["pending_over", "end"]


def test_the_time_of_a_running_job_is_announced_by_slurms_own_clock(service: Service) -> None:
    wish = {**make_email(), "events": ["begin", "time_limit_50", "time_limit_90"]}
    task, job_id = service.submit(notification=wish)
    start = utc_now()
    service.move(job_id, JobState.RUNNING, start_time=start, nodes="n1", time_limit_minutes=100)
    assert service.refresh(start + 49 * MINUTE) == 0
    service.slurm.put(job_id, JobState.RUNNING, time_limit_minutes=200)  # the operator gave it more
    service.refresh(start + 51 * MINUTE)
    assert [item.event for item in service.record(task).notifications] == ["begin"]
    service.refresh(start + 101 * MINUTE)
    service.refresh(start + 181 * MINUTE)
    events = [item.event for item in service.record(task).notifications]
    assert events == ["begin", "time_limit_50", "time_limit_90"]


def test_a_dependency_that_never_comes_true_is_noticed_while_the_job_waits(service: Service) -> None:
    wish = {**make_email(), "events": ["invalid_depend"]}
    task, job_id = service.submit(notification=wish)
    now = utc_now()
    service.refresh(now + 3 * MINUTE)
    service.slurm.put(job_id, JobState.PENDING, reason="DependencyNeverSatisfied")
    service.refresh(now + 3.1 * MINUTE)
    assert service.record(task).notifications == ()
    service.refresh(now + 6 * MINUTE)
    assert [item.event for item in service.record(task).notifications] == ["invalid_depend"]


def test_job_that_can_never_start_is_announced_once(service: Service) -> None:
    task, job_id = service.submit(notification={**make_email(), "events": ["end", "cannot_start"]})
    now = utc_now()
    service.slurm.put(job_id, JobState.PENDING, reason="PartitionTimeLimit")
    service.refresh(now + MINUTE / 2)
    assert service.record(task).notifications == ()
    for minutes in (2, 3, 11, 61, 1441):
        service.refresh(now + minutes * MINUTE)
    (item,) = service.record(task).notifications
    assert item.event == "cannot_start"
    assert item.content is not None
    assert item.content.subject.startswith("[cannot start] ")
    why = (
        "Slurm will not start the job as it is: the limits do not allow its time limit (PartitionTimeLimit)."
    )
    assert item.content.hint == why
    assert body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]["hint"] == why
    service.move(job_id, JobState.CANCELLED)
    assert [item.event for item in service.record(task).notifications] == ["cannot_start", "end"]


def test_waiting_job_is_read_four_times_at_most_to_see_whether_it_can_start(service: Service) -> None:
    task, job_id = service.submit(notification={**make_email(), "events": ["cannot_start"]})
    service.slurm.put(job_id, JobState.PENDING, reason="Resources")
    now = utc_now()
    looks: list[float] = []
    for minutes in (0.5, 2, 3, 5, 11, 12, 30, 61, 62, 600, 1441, 1442, 3000, 30_000):
        before = service.slurm.calls.count("read_jobs")
        service.refresh(now + minutes * MINUTE)
        looks += [minutes] * (service.slurm.calls.count("read_jobs") - before)
    assert looks == [2, 11, 61, 1441]
    assert service.record(task).notifications == ()
    assert service.record(task).alarm_at is None


def test_registered_job_that_can_never_start_is_announced(service: Service) -> None:
    long_ago = utc_now() - timedelta(days=50)
    service.slurm.put(5, JobState.PENDING, reason="QOSMaxWallDurationPerJobLimit", submit_time=long_ago)
    body = {"username": "alice", "uuid": "w", "notification": {**make_email(), "events": ["cannot_start"]}}
    service.registration.register(OPERATOR, {"monitor": {"task": body, "slurm_job_id": 5}})
    service.refresh(utc_now() + 2 * MINUTE)
    assert [item.event for item in service.record(body).notifications] == ["cannot_start"]


def test_an_alarm_is_no_reason_to_believe_another_job(service: Service) -> None:
    wish = {**make_email(), "events": [{"pending_over": 1}]}
    task, job_id = service.submit(notification=wish)
    service.slurm.jobs[job_id] = service.slurm.jobs[job_id].model_copy(update={"username": "bob"})
    service.refresh(utc_now() + 2 * MINUTE)
    assert service.record(task).notifications == ()
