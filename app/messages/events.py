"""What has happened to a job that its caller wishes to be told of, and when there may be more to tell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.job_state import JobState
from app.messages.pending_reasons import can_never_start
from app.models.job import SlurmJob
from app.models.notification_request import EventName, PendingOver
from app.models.record import TaskRecord

Wishes = Sequence[EventName | PendingOver]

_LIMITS = {EventName.TIME_LIMIT_50: 0.5, EventName.TIME_LIMIT_80: 0.8, EventName.TIME_LIMIT_90: 0.9}
_NEVER = "DependencyNeverSatisfied"
_REQUEUED_AND_HELD = (JobState.SPECIAL_EXIT, JobState.REQUEUE_HOLD)
_LOOK_AT_DEPENDENCIES = timedelta(minutes=1)  # a state of its own Slurm has none for them
# Ages of a record at which its waiting job is read to see whether it can start. Slurm gives its reason within
# seconds (22.05, 24.11), but later in a long queue.
_LOOK_AT_REASONS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell of. `key` is what tells it from all others of the task: a job may begin twice."""

    name: str
    key: str
    headline: str = ""
    mark: str = ""  # what stands before the caller's own subject


def events_of(wishes: Wishes, record: TaskRecord, job: SlurmJob, at: datetime) -> list[Event]:
    """Return the events that are or were due; the caller leaves out those that were announced already."""
    names = [wish for wish in wishes if isinstance(wish, EventName)]
    if EventName.END in names:  # which tells of a bad end, too
        names = [name for name in names if name is not EventName.FAIL]
    if EventName.INVALID_DEPEND in names and job.reason == _NEVER:
        names = [name for name in names if name is not EventName.CANNOT_START]
    found = [_moved(name, record, job) for name in names]
    found.append(_time_used(wishes, job, at))
    found += [_waited(wish, record, job, at) for wish in wishes if isinstance(wish, PendingOver)]
    return [event for event in found if event is not None]


def alarm(wishes: Wishes, record: TaskRecord, job: SlurmJob | None, at: datetime) -> datetime | None:
    """Return the next moment after `at` when an event may be due without a change of the job's state."""
    state = job.job_state if job else JobState.PENDING
    moments: list[datetime] = []
    if state.is_waiting:
        waits = [wish for wish in wishes if isinstance(wish, PendingOver)]
        moments += [_waiting_since(record, job) + timedelta(minutes=wish.pending_over) for wish in waits]
        is_told = any(item.event == EventName.CANNOT_START for item in record.notifications)
        if EventName.CANNOT_START in wishes and not is_told:
            moments += [_whole_minute(record.created_at + age) for age in _LOOK_AT_REASONS]
        if EventName.INVALID_DEPEND in wishes:
            moments.append(_whole_minute(at + _LOOK_AT_DEPENDENCIES))
    if job is not None and (limit := _limit(job)) is not None and job.start_time is not None:
        # Suspended time does not count towards the time limit.
        began = job.start_time + timedelta(seconds=job.suspended_seconds)
        moments += [began + share * limit for name, share in _LIMITS.items() if name in wishes]
    return min((moment for moment in moments if moment > at), default=None)


def _moved(name: EventName, record: TaskRecord, job: SlurmJob) -> Event | None:
    """Return the event that follows from the job's state, reason or number of restarts, if any."""
    state, again = job.job_state, f":{job.restarts}" if job.restarts else ""
    if name is EventName.END and state.is_settled:
        return Event("end", f"end{again}")
    if name is EventName.FAIL and state.is_settled and not state.is_success:
        return Event("fail", f"fail{again}")
    has_begun = not state.is_waiting and state is not JobState.CONFIGURING
    if name is EventName.BEGIN and job.start_time and job.nodes and has_begun:
        return Event("begin", f"begin{again}", "The job has begun.", "begun")
    if name is EventName.REQUEUE and job.restarts > _restarts(record):
        held = ", and is held there until it is released" if state in _REQUEUED_AND_HELD else ""
        words = f"The job was put back into the queue (restart {job.restarts}){held}."
        return Event("requeue", f"requeue{again}", words, "requeued")
    if name is EventName.INVALID_DEPEND and job.reason == _NEVER:
        words = "The job can never begin: what it depends on did not end as it had to."
        return Event("invalid_depend", "invalid_depend", words, "cannot begin")
    if name is EventName.CANNOT_START and can_never_start(job):
        words = "The job waits in the queue, but cannot start as it is."
        return Event("cannot_start", "cannot_start", words, "cannot start")
    return None


def _time_used(wishes: Iterable[EventName | PendingOver], job: SlurmJob, at: datetime) -> Event | None:
    """Return the event of the largest share of the time limit that the job has used up, if any."""
    limit = _limit(job)
    run = job.elapsed_seconds_until(at)
    if limit is None or run is None:
        return None
    reached = [
        (share, name)
        for name, share in _LIMITS.items()
        if name in wishes and timedelta(seconds=run) >= share * limit
    ]
    if not reached:
        return None
    share, name = max(reached)
    used = f"{100 * share:.0f} % of its time limit"
    return Event(name, f"{name}:{job.restarts}" if job.restarts else name, f"The job has used {used}.", used)


def _waited(wish: PendingOver, record: TaskRecord, job: SlurmJob, at: datetime) -> Event | None:
    if not job.job_state.is_waiting or at < _waiting_since(record, job) + timedelta(
        minutes=wish.pending_over
    ):
        return None
    minutes = f"{wish.pending_over} minute{'s' if wish.pending_over > 1 else ''}"
    words = f"The job has been waiting for more than {minutes}."
    return Event("pending_over", f"pending_over:{wish.pending_over}", words, "still waiting")


def _whole_minute(moment: datetime) -> datetime:
    """Rounded up, so that many jobs are looked at together."""
    return moment + timedelta(seconds=-moment.timestamp() % 60)


def _restarts(record: TaskRecord) -> int:
    return record.job.restarts if record.job else 0


def _limit(job: SlurmJob) -> timedelta | None:
    """Its time limit while it runs."""
    if job.job_state is not JobState.RUNNING or job.time_limit_minutes is None or job.array_tasks:
        return None
    return timedelta(minutes=job.time_limit_minutes)


def _waiting_since(record: TaskRecord, job: SlurmJob | None) -> datetime:
    return (job.submit_time if job else None) or record.created_at
