"""Find the requested events of a job, and the time of the next event without a change of state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.job_state import JobState
from app.messages.pending_reasons import can_never_start
from app.models.job import SlurmJob
from app.models.notification_request import EventName, PendingOver
from app.models.record import TaskRecord

RequestedEvents = Sequence[EventName | PendingOver]

_TIME_LIMIT_SHARES = {
    EventName.TIME_LIMIT_50: 0.5,
    EventName.TIME_LIMIT_80: 0.8,
    EventName.TIME_LIMIT_90: 0.9,
}
_DEPENDENCY_FAILED = "DependencyNeverSatisfied"
_REQUEUED_AND_HELD = (JobState.SPECIAL_EXIT, JobState.REQUEUE_HOLD)
_HELD_REASONS = ("JobHeldUser", "JobHeldAdmin")
_DEPENDENCY_CHECK_INTERVAL = timedelta(minutes=1)  # Slurm has no state for a job whose dependency failed
# Ages of a record at which its waiting job is read, to find out whether it can start. Slurm gives its reason
# within seconds (22.05, 24.11), but later in a long queue.
_REASON_CHECK_AGES = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job that is announced. `key` is unique in the task, as a job may begin twice."""

    name: str
    key: str
    headline: str = ""
    subject_prefix: str = ""  # stands before the caller's own subject, in brackets


def find_events(requested: RequestedEvents, record: TaskRecord, job: SlurmJob, at: datetime) -> list[Event]:
    """Return the requested events that have happened, including events that were announced already."""
    names = [item for item in requested if isinstance(item, EventName)]
    if EventName.END in names:  # END announces a bad end, too
        names = [name for name in names if name is not EventName.FAIL]
    if EventName.INVALID_DEPEND in names and job.reason == _DEPENDENCY_FAILED:
        names = [name for name in names if name is not EventName.CANNOT_START]
    found = [_find_state_event(name, record, job) for name in names]
    found.append(_find_time_limit_event(requested, job, at))
    found += [
        _find_pending_event(item, record, job, at) for item in requested if isinstance(item, PendingOver)
    ]
    return [event for event in found if event is not None]


def next_event_check(
    requested: RequestedEvents, record: TaskRecord, job: SlurmJob | None, at: datetime
) -> datetime | None:
    """Return the next time after `at` when an event may be due without a change of the job's state."""
    state = job.job_state if job else JobState.PENDING
    moments: list[datetime] = []
    if state.is_waiting:
        waits = [item for item in requested if isinstance(item, PendingOver)]
        moments += [_waiting_since(record, job) + timedelta(minutes=item.pending_over) for item in waits]
        is_told = any(item.event == EventName.CANNOT_START for item in record.notifications)
        if EventName.CANNOT_START in requested and not is_told:
            moments += [_round_up_to_minute(record.created_at + age) for age in _REASON_CHECK_AGES]
        if EventName.INVALID_DEPEND in requested:
            moments.append(_round_up_to_minute(at + _DEPENDENCY_CHECK_INTERVAL))
    if job is not None and (limit := _time_limit(job)) is not None and job.start_time is not None:
        # Suspended time does not count towards the time limit.
        began = job.start_time + timedelta(seconds=job.suspended_seconds)
        moments += [began + share * limit for name, share in _TIME_LIMIT_SHARES.items() if name in requested]
    return min((moment for moment in moments if moment > at), default=None)


def _find_state_event(name: EventName, record: TaskRecord, job: SlurmJob) -> Event | None:
    """Return the event that follows from the job's state, reason or number of restarts, if any."""
    state, again = job.job_state, f":{job.restarts}" if job.restarts else ""
    if name is EventName.END and state.is_settled:
        return Event("end", f"end{again}")
    if name is EventName.FAIL and state.is_settled and not state.is_success:
        return Event("fail", f"fail{again}")
    if name is EventName.BEGIN and job.start_time and job.nodes and state.has_begun:
        return Event("begin", f"begin{again}", "The job has begun.", "begun")
    if name is EventName.REQUEUE and job.restarts > _known_restarts(record):
        held = ", and is held there until it is released" if _is_requeued_and_held(job) else ""
        words = f"The job was put back into the queue (restart {job.restarts}){held}."
        return Event("requeue", f"requeue{again}", words, "requeued")
    if name is EventName.INVALID_DEPEND and job.reason == _DEPENDENCY_FAILED:
        words = "The job can never start: a job that it depends on did not end as required."
        return Event("invalid_depend", "invalid_depend", words, "cannot begin")
    if name is EventName.CANNOT_START and can_never_start(job):
        words = "The job waits in the queue, but cannot start as it is."
        return Event("cannot_start", "cannot_start", words, "cannot start")
    return None


def _is_requeued_and_held(job: SlurmJob) -> bool:
    """Return whether a requeued job is held; while its processes end, only the reason shows that."""
    is_waiting = job.job_state.is_waiting or job.job_state is JobState.COMPLETING
    return job.job_state in _REQUEUED_AND_HELD or (is_waiting and job.reason in _HELD_REASONS)


def _find_time_limit_event(
    requested: Iterable[EventName | PendingOver], job: SlurmJob, at: datetime
) -> Event | None:
    """Return the event of the largest share of the time limit that the job has used up, if any."""
    limit = _time_limit(job)
    run = job.elapsed_seconds_until(at)
    if limit is None or run is None:
        return None
    reached = [
        (share, name)
        for name, share in _TIME_LIMIT_SHARES.items()
        if name in requested and timedelta(seconds=run) >= share * limit
    ]
    if not reached:
        return None
    share, name = max(reached)
    used = f"{100 * share:.0f} % of its time limit"
    return Event(name, f"{name}:{job.restarts}" if job.restarts else name, f"The job has used {used}.", used)


def _find_pending_event(item: PendingOver, record: TaskRecord, job: SlurmJob, at: datetime) -> Event | None:
    if not job.job_state.is_waiting or at < _waiting_since(record, job) + timedelta(
        minutes=item.pending_over
    ):
        return None
    minutes = f"{item.pending_over} minute{'s' if item.pending_over > 1 else ''}"
    words = f"The job has been waiting for more than {minutes}."
    return Event("pending_over", f"pending_over:{item.pending_over}", words, "still waiting")


def _round_up_to_minute(moment: datetime) -> datetime:
    """Return the next whole minute, so that many jobs are read together."""
    return moment + timedelta(seconds=-moment.timestamp() % 60)


def _known_restarts(record: TaskRecord) -> int:
    return record.job.restarts if record.job else 0


def _time_limit(job: SlurmJob) -> timedelta | None:
    """Return the time limit of a job that runs; None if unlimited, or for an array."""
    if job.job_state is not JobState.RUNNING or job.time_limit_minutes is None or job.array_tasks:
        return None
    return timedelta(minutes=job.time_limit_minutes)


def _waiting_since(record: TaskRecord, job: SlurmJob | None) -> datetime:
    return (job.submit_time if job else None) or record.created_at
