"""Each way of being unwell is visible in the parts of the service, and gone after it heals."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import SlurmMisbehaved, SlurmProxyError, SlurmTokenRefused, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.check_readiness import ReadinessCheck
from app.lifecycle.judge_health import HealthLimits
from app.lifecycle.report_health import HealthReporter
from app.models.health_answers import Parts, PartStatus, Readiness
from app.models.record import NotificationStatus, utc_now
from app.store.notification_queue import Outcome
from app.store.sqlite import SqliteStore
from tests.support.lifecycle import MINUTE, Service, left_open
from tests.support.tasks import make_email

READY, DEGRADED, NOT_READY, UNKNOWN = PartStatus
SECOND = timedelta(seconds=1)


class Operator:
    """Checks the readiness of a service as another process with the same store; nothing is cached."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service = service
        self.ahead = timedelta(0)  # how much later it is than in the service
        self.store = SqliteStore(path, host_clock=lambda: utc_now() + self.ahead)
        self._seconds = 0.0
        self._check = ReadinessCheck(
            self.store,
            HealthReporter(self.store, service.client, clock=lambda: self._seconds),
            [service.client],
            service.clocks,
            HealthLimits(interval=1, lease=30, reservation=5 * MINUTE),
            clock=lambda: self._seconds,
        )

    def lead(self) -> None:
        """Do what the loops of the leader do between two polls."""
        for step in (
            lambda: self.service.monitor.run_cycle(self.service.store.now()),
            self.service.monitor.check_slurm,
        ):
            with suppress(SlurmProxyError):
                step()

    def status(self) -> PartStatus:
        return self.check().status

    def check(self) -> Readiness:
        self._seconds += 20  # nothing is cached for so long
        return self._check.check()

    def parts(self) -> Parts:
        parts = self.check().parts
        assert parts is not None
        return parts

    def faults(self) -> dict[str, PartStatus]:
        return {name: part.status for name, part in self.parts().items() if part.status is not READY}


@pytest.fixture
def operator(service: Service, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(service, tmp_path / "store.sqlite3")
    yield operator
    operator.store.close()


def test_a_service_is_ready_from_its_first_poll_on(operator: Operator) -> None:
    assert operator.status() is NOT_READY
    assert operator.parts().poll.reason == "no poll has succeeded yet"
    operator.lead()
    assert operator.faults() == {}
    assert operator.status() is READY
    parts = operator.parts()
    assert (parts.leader.process, parts.accounting.present) == ("here", True)
    assert parts.poll.age_seconds is not None


def test_an_outage_of_slurm_makes_the_service_degraded_however_long_it_lasts(operator: Operator) -> None:
    operator.lead()
    operator.service.slurm.down = SlurmUnavailable("slurmctld does not answer")
    operator.lead()
    for operator.ahead in (2 * SECOND, 29 * SECOND):
        assert operator.status() is DEGRADED
        assert "slurmctld does not answer" in (operator.parts().slurm.reason or "")
    operator.service.slurm.down = None
    operator.lead()
    operator.ahead = timedelta(0)
    assert operator.faults() == {}


def test_an_open_circuit_shows_an_outage_although_the_leader_sees_none(operator: Operator) -> None:
    operator.lead()
    operator.service.slurm.known_down = SlurmUnavailable("no route to slurmrestd from this host")
    assert operator.faults() == {"slurm": DEGRADED, "key": UNKNOWN}
    operator.service.slurm.known_down = None
    assert operator.faults() == {}


def test_a_key_that_slurm_refuses_makes_the_service_not_ready(operator: Operator) -> None:
    operator.service.slurm.down = SlurmTokenRefused("Slurm does not accept this service's token")
    operator.lead()
    assert operator.status() is NOT_READY
    assert operator.parts().key == operator.parts().key.model_copy(
        update={"status": NOT_READY, "reason": "Slurm does not accept this service's token"}
    )
    operator.service.slurm.down = None
    operator.lead()
    assert operator.faults() == {}


def test_a_wrong_key_in_this_process_alone_makes_it_not_ready(operator: Operator) -> None:
    operator.lead()
    operator.service.slurm.token_fault = "Slurm does not accept this service's token"
    assert operator.faults() == {"key": NOT_READY}


def test_slurmdbd_down_is_degraded_and_a_cluster_without_it_is_ready(operator: Operator) -> None:
    operator.service.slurm.accounting_down = SlurmUnavailable("slurmdbd does not answer")
    operator.lead()
    assert operator.faults() == {"accounting": DEGRADED}
    assert operator.parts().accounting.reason == "slurmdbd does not answer"
    operator.service.slurm.has_accounting = False
    operator.lead()
    assert operator.faults() == {}
    assert operator.parts().accounting.present is False


def test_a_late_poll_is_degraded_and_not_ready_when_no_other_leader_polls_either(operator: Operator) -> None:
    operator.lead()
    operator.ahead = 10 * SECOND
    assert operator.faults() == {"poll": DEGRADED}
    assert "ended 1" in (operator.parts().poll.reason or "")
    operator.ahead = 100 * SECOND
    assert operator.faults() == {"poll": NOT_READY, "leader": NOT_READY, "accounting": UNKNOWN}
    assert operator.parts().accounting.reason == "slurmdbd could not be checked yet"
    operator.ahead = timedelta(0)
    assert operator.faults() == {}


def test_polls_that_fail_are_named_with_their_reason(operator: Operator) -> None:
    operator.lead()
    operator.service.slurm.down = SlurmMisbehaved("slurmrestd offers no version that is supported")
    with pytest.raises(SlurmMisbehaved):
        operator.service.monitor.run_cycle(operator.service.store.now())
    operator.ahead = 10 * SECOND
    assert "slurmrestd offers no version" in (operator.parts().poll.reason or "")


def test_a_leader_that_stops_leaves_a_moment_for_another_one(operator: Operator) -> None:
    operator.lead()
    operator.service.store.release_lease("here")
    assert operator.faults()["leader"] is DEGRADED
    operator.ahead = 20 * SECOND
    assert operator.faults()["leader"] is NOT_READY
    operator.ahead = timedelta(0)
    operator.lead()
    assert operator.faults() == {}


def test_a_former_leaders_view_of_slurm_does_not_count(operator: Operator) -> None:
    operator.service.slurm.down = SlurmUnavailable("away")
    operator.lead()
    operator.service.slurm.down = None
    operator.service.store.release_lease("here")
    assert operator.parts().slurm.status is READY


def test_a_store_that_is_away_makes_the_service_not_ready(operator: Operator, tmp_path: Path) -> None:
    operator.lead()
    path, aside = tmp_path / "store.sqlite3", tmp_path / "aside"
    path.rename(aside)
    faults = operator.faults()
    assert operator.status() is NOT_READY
    assert faults.pop("store") is NOT_READY
    assert set(faults.values()) == {UNKNOWN}
    assert "removed or replaced" in (operator.parts().store.reason or "")
    aside.rename(path)
    assert operator.faults() == {}


def test_a_store_that_can_be_read_but_not_written_is_not_ready(operator: Operator) -> None:
    operator.lead()
    with operator.service.store.writing():
        assert operator.faults() == {"store": NOT_READY}
        assert "locked" in (operator.parts().store.reason or "")
    operator.lead()
    assert operator.faults() == {}


def test_a_reservation_that_stays_open_is_degraded_until_it_is_settled(operator: Operator) -> None:
    left_open(operator.service, exists=True)
    operator.lead()
    assert operator.faults() == {}
    assert operator.parts().reservations.open == 1
    operator.ahead = 6 * MINUTE
    assert operator.faults()["reservations"] is DEGRADED
    operator.service.reconcile(utc_now() + 3 * MINUTE)
    assert "reservations" not in operator.faults()
    assert operator.parts().reservations.open == 0


def test_due_messages_that_no_process_sends_are_degraded(operator: Operator) -> None:
    _, job_id = operator.service.submit(notification=make_email())
    operator.service.move(job_id, JobState.FAILED)
    operator.lead()
    assert (operator.parts().notifications.due, operator.faults()) == (1, {})
    operator.ahead = 3 * MINUTE
    assert operator.faults()["notifications"] is DEGRADED
    operator.service.deliver()
    assert "notifications" not in operator.faults()


def test_dead_letters_are_degraded_until_they_are_sent_or_old(operator: Operator) -> None:
    service = operator.service
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.FAILED)
    operator.lead()
    claim = service.store.claim("email", "me", utc_now(), utc_now() + MINUTE)
    assert claim is not None
    service.store.settle(claim, Outcome(NotificationStatus.DEAD, utc_now(), error="no such user"))
    assert operator.faults() == {"dead_letters": DEGRADED}
    assert operator.status() is DEGRADED
    operator.ahead = timedelta(days=8)
    assert "dead_letters" not in operator.faults()
    operator.ahead = timedelta(0)
    service.store.retry_dead(utc_now())
    service.deliver()
    assert operator.faults() == {}
    assert service.record(task).notifications[0].status is NotificationStatus.SENT


def test_a_check_asks_slurm_nothing_and_callers_share_it(service: Service) -> None:
    reporter = HealthReporter(service.store, service.client)
    limits = HealthLimits(interval=1, lease=30, reservation=MINUTE)
    check = ReadinessCheck(service.store, reporter, [service.client], service.clocks, limits)
    service.slurm.calls.clear()
    assert check.check() == check.check()
    assert service.slurm.calls == []
