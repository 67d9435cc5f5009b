"""Judge the health of each part of the service: pure functions, one for each part."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.models.health_answers import (
    AccountingPart,
    DeadLettersPart,
    LeaderPart,
    NotificationsPart,
    Part,
    PartStatus,
    PollPart,
    ReservationsPart,
    SlurmPart,
    StorePart,
)
from app.models.leader_report import LeaderReport
from app.store.health import Backlog
from app.store.lease import Lease

_JITTER = 1.1  # by which the pause between two polls may be longer
_SLACK = timedelta(seconds=1)
_OVERDUE = timedelta(minutes=2)  # a message is claimed within seconds of becoming due
_RECENT = timedelta(days=7)  # for which a dead letter counts as a fault


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Limits beyond which a part counts as late.

    Attributes:
        interval: Seconds between two polls.
        lease: Seconds after which another process leads, if the leader dies.
        reservation: How long a reservation may be open, if all goes well.
    """

    interval: float
    lease: float
    reservation: timedelta


@dataclass(frozen=True, slots=True)
class SlurmKnowledge:
    """Knowledge of Slurm: the leader's report, and the faults of this process's own requests."""

    report: LeaderReport
    outages: Sequence[str | None] = ()
    token_faults: Sequence[str | None] = ()

    @property
    def outage(self) -> str | None:
        """Return why Slurm cannot be used."""
        return self.report.slurm_fault or next(filter(None, self.outages), None)

    @property
    def key_fault(self) -> str | None:
        """Return why Slurm does not accept the key."""
        return self.report.key_fault or next(filter(None, self.token_faults), None)


def judge_store(fault: str | None, seconds: float) -> StorePart:
    """Judge the store by the last write."""
    status = PartStatus.NOT_READY if fault else PartStatus.READY
    return StorePart(status=status, reason=fault, write_seconds=round(seconds, 4))


def judge_poll(report: LeaderReport, now: datetime, limits: HealthLimits, outage: str | None) -> PollPart:
    """Judge the polls: late after two cycles, and not ready when another leader should have polled, too.

    While Slurm is down no poll can succeed, which is no fault of this service.
    """
    finished = report.finished_at
    if finished is None:
        status = PartStatus.DEGRADED if outage else PartStatus.NOT_READY
        return PollPart(status=status, reason=_join("no poll has succeeded yet", report.fault or outage))
    age = max(now - finished, timedelta(0))
    pause = report.pause_seconds or limits.interval
    late = timedelta(seconds=2 * (pause * _JITTER + (report.seconds or 0))) + _SLACK
    part = PollPart(
        status=PartStatus.READY,
        finished_at=finished,
        age_seconds=round(age.total_seconds(), 1),
        duration_seconds=round(report.seconds or 0, 3),
    )
    if age <= late:
        return part
    is_excused = outage is not None or age <= late + timedelta(seconds=2 * limits.lease)
    words = f"the last poll that succeeded ended {age.total_seconds():.0f} s ago"
    return part.model_copy(
        update={
            "status": PartStatus.DEGRADED if is_excused else PartStatus.NOT_READY,
            "reason": _join(words, report.fault or outage),
        }
    )


def judge_leader(lease: Lease | None, now: datetime, poll: PollPart, disagreement: str | None) -> LeaderPart:
    """Judge the lease; as long as the last poll is young, another process may be about to lead."""
    if lease is not None and lease.is_held(now):
        return LeaderPart(status=PartStatus.READY, process=lease.owner, lease_until=lease.until)
    is_young = poll.status is PartStatus.READY
    reason = _join("no process leads, so Slurm is not polled", disagreement)
    return LeaderPart(status=PartStatus.DEGRADED if is_young else PartStatus.NOT_READY, reason=reason)


def judge_slurm(known: SlurmKnowledge) -> SlurmPart:
    """Judge slurmctld; without slurmctld this service is degraded, but ready."""
    status = PartStatus.DEGRADED if known.outage else PartStatus.READY
    return SlurmPart(status=status, reason=known.outage, checked_at=known.report.slurm_checked_at)


def judge_key(known: SlurmKnowledge) -> Part:
    """Judge the key for Slurm, without which nothing works."""
    if known.key_fault is None and known.outage is not None:
        return Part(status=PartStatus.UNKNOWN, reason="Slurm does not answer")
    return Part(status=PartStatus.NOT_READY if known.key_fault else PartStatus.READY, reason=known.key_fault)


def judge_accounting(report: LeaderReport) -> AccountingPart:
    """Judge slurmdbd, without which exit codes and accounting of forgotten jobs are missing."""
    if report.accounting_fault:
        part = AccountingPart(status=PartStatus.DEGRADED, reason=report.accounting_fault)
    elif report.has_accounting is None:
        part = AccountingPart(status=PartStatus.UNKNOWN, reason="slurmdbd could not be checked yet")
    else:
        part = AccountingPart(status=PartStatus.READY)
    return part.model_copy(update={"present": report.has_accounting})


def judge_reservations(backlog: Backlog, now: datetime, limits: HealthLimits) -> ReservationsPart:
    """Judge the reservations: one that stays open longer than a search in Slurm takes is stuck."""
    age = _age(backlog.oldest_reservation_at, now)
    part = ReservationsPart(status=PartStatus.READY, open=backlog.reservations, oldest_seconds=age)
    if age is None or age <= limits.reservation.total_seconds():
        return part
    words = f"a submission of {age:.0f} s ago is neither settled as a job nor freed"
    return part.model_copy(update={"status": PartStatus.DEGRADED, "reason": words})


def judge_notifications(backlog: Backlog, now: datetime) -> NotificationsPart:
    """Judge the messages that are due: a message that no process claims shows that nothing is delivered."""
    count = sum(due.count for due in backlog.due.values())
    method, oldest_at = min(
        ((method, due.oldest_at) for method, due in backlog.due.items()),
        key=lambda item: item[1],
        default=("", None),
    )
    age = _age(oldest_at, now)
    part = NotificationsPart(status=PartStatus.READY, due=count, oldest_seconds=age)
    if age is None or age <= _OVERDUE.total_seconds():
        return part
    words = f"a message by {method} has been due for {age:.0f} s, and no process sends it"
    return part.model_copy(update={"status": PartStatus.DEGRADED, "reason": words})


def judge_dead_letters(backlog: Backlog, now: datetime) -> DeadLettersPart:
    """Judge the dead letters: one of the last days needs an operator."""
    age = _age(backlog.newest_dead_at, now)
    part = DeadLettersPart(status=PartStatus.READY, dead=backlog.dead, newest_seconds=age)
    if age is None or age > _RECENT.total_seconds():
        return part
    words = f"messages that were given up: {backlog.dead}; see GET /notifications"
    return part.model_copy(update={"status": PartStatus.DEGRADED, "reason": words})


def _age(at: datetime | None, now: datetime) -> float | None:
    return round(max((now - at).total_seconds(), 0), 1) if at is not None else None


def _join(words: str, why: str | None) -> str:
    return f"{words}: {why}" if why else words
