"""What look-ups of open jobs ask Slurm, and how fresh their answers are."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.look_up import LookupStore, TaskLookup
from app.lifecycle.present_facts import PresentFacts
from app.lifecycle.shared_status import LastPoll
from app.models.caller import OPERATOR
from app.models.record import TaskRecord, utc_now
from app.slurm.client import SlurmClient
from app.slurm.dialect import SUPPORTED_API_VERSIONS
from app.slurm.request_budget import RequestBudget
from app.store.lineage import Descendant
from tests.support.answers import body_of
from tests.support.lifecycle import Service, watch

OLDEST, NEWEST = SUPPORTED_API_VERSIONS[-1], SUPPORTED_API_VERSIONS[0]
SOON = timedelta(seconds=30)  # after everything that a test records


class OlderRecords:
    """The store of a service, which makes the last change of a record older."""

    def __init__(self, service: Service) -> None:
        self._store = service.store
        self.recorded_ago = timedelta(0)

    def find_by_job_id(self, job_id: int) -> TaskRecord | None:
        record = self._store.find_by_job_id(job_id)
        updated_at = record.updated_at - self.recorded_ago if record else None
        return record and record.model_copy(update={"updated_at": updated_at})

    def list_resubmissions(
        self, uuid: str, limit: int, usernames: Sequence[str] | None = None
    ) -> list[Descendant]:
        return list(self._store.list_resubmissions(uuid, limit, usernames))


class Callers:
    """Look-ups by one process, at times that a test chooses."""

    def __init__(self, service: Service, per_second: float = 5) -> None:
        self.slurm = service.slurm
        self.seconds = 100.0
        self.store_ahead = timedelta(0)  # of the host's clock
        self.poll: LastPoll | None = None
        budget = RequestBudget(per_second, self.clock)
        facts = PresentFacts(cast(SlurmClient, service.slurm), budget, self.clock, self.now)
        self._store = OlderRecords(service)
        self._lookup = TaskLookup(cast(LookupStore, self._store), facts, lambda: self.poll)

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return utc_now() + self.store_ahead

    def ask(self, job_id: int, recorded_ago: timedelta = timedelta(0)) -> dict[str, Any]:
        self._store.recorded_ago = recorded_ago
        return dict(body_of(self._lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"])

    def requests(self) -> list[str]:
        """Return the requests since the last call."""
        asked = [name for name in self.slurm.calls if name in ("read_states", "find_job")]
        self.slurm.calls.clear()
        return asked

    def note_poll(self, age: float = 0.5, *uncovered: int) -> datetime:
        """Have all jobs that are recorded by now covered by a poll."""
        self.poll = LastPoll(utc_now() + SOON, age, frozenset(uncovered))
        return self.poll.began


@pytest.fixture(params=[OLDEST, NEWEST])
def callers(service: Service, request: pytest.FixtureRequest) -> Callers:
    service.slurm.api = request.param
    return Callers(service)


@pytest.fixture
def running(service: Service, callers: Callers) -> int:
    """A job whose record says that it runs."""
    _, job_id = service.submit()
    service.move(job_id, JobState.RUNNING, nodes="n1")
    callers.requests()
    return job_id


def as_of(slurm: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(slurm["as_of"])


def test_a_running_job_that_the_last_poll_covers_costs_no_request(callers: Callers, running: int) -> None:
    began = callers.note_poll()
    slurm = callers.ask(running)
    assert (slurm["job_state"], slurm["nodes"], as_of(slurm)) == ("RUNNING", "n1", began)
    assert "stale" not in slurm
    assert callers.requests() == []


def test_an_older_poll_is_no_answer_while_slurm_may_be_asked(callers: Callers, running: int) -> None:
    callers.note_poll(2.1)
    callers.slurm.put(running, JobState.COMPLETED, exit_code=0)
    slurm = callers.ask(running)
    assert (slurm["job_state"], slurm["exit_code"]) == ("COMPLETED", 0)
    assert "stale" not in slurm


def test_a_job_that_the_poll_did_not_cover_is_asked_for(callers: Callers, running: int) -> None:
    callers.note_poll(0.5, running)
    callers.slurm.put(running, JobState.COMPLETED)
    assert callers.ask(running)["job_state"] == "COMPLETED"


def test_a_record_that_changed_after_the_poll_began_is_not_covered(
    service: Service, callers: Callers, running: int
) -> None:
    callers.poll = LastPoll(utc_now() + timedelta(seconds=4), 0.5, frozenset())
    callers.slurm.put(running, JobState.COMPLETED)
    assert callers.ask(running)["job_state"] == "COMPLETED"


def test_a_poll_older_than_the_last_reading_of_the_job_is_ignored(callers: Callers, running: int) -> None:
    callers.slurm.put(running, JobState.COMPLETING)
    assert callers.ask(running)["job_state"] == "COMPLETING"
    callers.poll = LastPoll(utc_now() - SOON, 0.5, frozenset())
    callers.seconds += 3
    assert callers.ask(running)["job_state"] == "COMPLETING"


def test_a_change_of_state_is_seen_within_two_seconds(callers: Callers, running: int) -> None:
    assert callers.ask(running)["job_state"] == "RUNNING"
    callers.slurm.put(running, JobState.SUSPENDED)
    callers.seconds += 2.1
    slurm = callers.ask(running)
    assert slurm["job_state"] == "SUSPENDED"
    assert utc_now() - as_of(slurm) < timedelta(seconds=5)


def test_a_job_whose_state_is_the_known_one_is_not_read_again(callers: Callers, running: int) -> None:
    before = utc_now()
    assert as_of(callers.ask(running)) >= before
    is_listed = callers.slurm.api == NEWEST
    assert callers.requests() == ["read_states" if is_listed else "find_job"]


def test_the_reason_of_a_waiting_job_is_read_every_two_seconds(service: Service, callers: Callers) -> None:
    _, job_id = service.submit()
    callers.slurm.put(job_id, reason="Resources")
    assert callers.ask(job_id)["reason"] == "Resources"
    callers.slurm.put(job_id, reason="Priority")
    callers.seconds += 1.9
    callers.note_poll()
    assert callers.ask(job_id)["reason"] == "Resources"
    callers.seconds += 0.2
    assert callers.ask(job_id)["reason"] == "Priority"
    assert callers.requests().count("find_job") == 2


def test_a_waiting_job_that_cannot_be_read_has_the_time_of_its_reason(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = [service.submit()[1] for _ in range(5)]
    callers.slurm.put(ids[0], reason="Resources")
    first = callers.ask(ids[0])
    callers.slurm.put(ids[0], reason="Priority")
    for job_id in ids[1:]:
        callers.ask(job_id)
    callers.seconds += 2.1
    callers.note_poll()
    assert callers.ask(ids[0]) == first, "nothing is stale: Slurm was not asked"


def test_a_new_job_of_which_nothing_is_known_is_read(service: Service, callers: Callers) -> None:
    _, job_id = service.submit()
    callers.note_poll()
    callers.requests()
    assert callers.ask(job_id)["comment"]
    assert callers.requests() == ["find_job"]


def test_a_new_job_that_cannot_be_read_has_its_polled_state(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = [service.submit()[1] for _ in range(6)]
    began = callers.note_poll()
    answers = [callers.ask(job_id) for job_id in ids]
    assert callers.requests() == ["find_job"] * 3
    assert answers[-1] == {
        "username": "alice",
        "job_id": ids[-1],
        "job_state": "PENDING",
        "as_of": began.isoformat(),
    }


def test_the_listed_state_of_a_new_job_is_not_followed_by_an_older_one(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = [service.submit()[1] for _ in range(4)]
    for job_id in ids:
        callers.slurm.put(job_id, JobState.RUNNING)
    answers = [callers.ask(job_id) for job_id in ids]
    assert callers.requests() == ["find_job"] * 3 + ["read_states"]
    callers.seconds += 2.1
    assert callers.ask(ids[-1]) == answers[-1]
    assert answers[-1]["job_state"] == "RUNNING"
    began = callers.note_poll(20)  # which found the job as it is recorded: it was requeued
    assert callers.ask(ids[-1]) == {**answers[-1], "job_state": "PENDING", "as_of": began.isoformat()}
    assert callers.requests() == []


def test_a_list_does_not_prove_the_end_of_a_job_that_was_never_read(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = [service.submit()[1] for _ in range(6)]
    for job_id in ids:
        callers.slurm.put(job_id, JobState.COMPLETED)
    answers = [callers.ask(job_id) for job_id in ids]
    assert [slurm["job_state"] for slurm in answers] == ["COMPLETED"] * 3 + ["PENDING"] * 3


def test_without_a_budget_a_changed_job_has_its_last_known_facts(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = []
    for _ in range(8):
        ids.append(service.submit()[1])
        service.move(ids[-1], JobState.RUNNING)
    recorded = service.store.find_by_job_id(ids[-1])
    for job_id in ids:
        callers.slurm.put(job_id, JobState.FAILED, exit_code=3)
    callers.requests()
    answers = [callers.ask(job_id) for job_id in ids]
    assert len(callers.requests()) <= 4
    assert answers[0]["exit_code"] == 3
    assert recorded is not None
    assert (answers[-1]["job_state"], as_of(answers[-1])) == ("RUNNING", recorded.updated_at)
    assert "stale" not in answers[-1]


def test_without_a_budget_an_older_poll_still_tells_the_age_of_the_facts(
    callers: Callers, running: int, service: Service
) -> None:
    callers = Callers(service, per_second=0.1)
    for number in range(8):
        callers.ask(service.submit()[1] if number else running)
    callers.seconds += 2.1
    began = callers.note_poll(20)
    callers.requests()
    while callers.ask(running) and callers.requests():
        callers.seconds += 2.1
    assert as_of(callers.ask(running)) == began


def test_an_array_is_read_although_a_poll_says_that_nothing_changed(
    service: Service, callers: Callers
) -> None:
    _, job_id = service.submit(slurm={"array": "0-2"})
    service.slurm.put(job_id, array_tasks={JobState.PENDING: 3})
    callers.note_poll()
    assert callers.ask(job_id)["array_tasks"] == {"PENDING": 3}
    service.slurm.put(job_id, array_tasks={JobState.PENDING: 2, JobState.RUNNING: 1})
    callers.seconds += 2.1
    assert callers.ask(job_id)["array_tasks"] == {"PENDING": 2, "RUNNING": 1}
    assert "read_states" not in callers.requests(), "a list has an entry for each task"


def test_an_array_that_cannot_be_read_has_no_polled_state(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    ids = [service.submit(slurm={"array": "0-2"})[1] for _ in range(4)]
    record = service.store.find_by_job_id(ids[-1])
    callers.note_poll()
    callers.requests()
    answers = [callers.ask(job_id) for job_id in ids]
    assert callers.requests() == ["find_job"] * 3
    assert record is not None
    assert as_of(answers[-1]) == record.updated_at


def test_a_running_job_is_read_again_after_a_minute(service: Service, callers: Callers, running: int) -> None:
    """Its user may have changed the time limit."""
    service.slurm.put(running, JobState.RUNNING, time_limit_minutes=90)
    callers.note_poll()
    assert callers.ask(running)["time_limit_minutes"] is None
    assert callers.ask(running, timedelta(minutes=2))["time_limit_minutes"] == 90
    assert callers.requests() == ["find_job"]


def test_a_job_that_slurmctld_forgot_is_looked_up_in_slurmdbd(callers: Callers, running: int) -> None:
    callers.slurm.put(running, JobState.COMPLETED, comment=None)
    callers.slurm.forget(running)
    assert callers.ask(running)["job_state"] == "COMPLETED"


def test_an_unknown_job_is_shown_as_unknown(callers: Callers, running: int) -> None:
    del callers.slurm.jobs[running]
    slurm = callers.ask(running)
    assert slurm["job_state"] == "UNKNOWN"
    assert "name" not in slurm


def test_an_error_is_shared_for_two_seconds(callers: Callers, running: int) -> None:
    callers.slurm.down = SlurmUnavailable("slurmctld is down")
    for _ in range(20):
        slurm = callers.ask(running)
        assert (slurm["stale"], slurm["error"], slurm["nodes"]) == (True, "slurmctld is down", "n1")
    assert callers.requests().count("find_job") == 1


def test_while_the_circuit_is_open_nothing_is_asked(callers: Callers, running: int) -> None:
    callers.slurm.known_down = callers.slurm.down = SlurmUnavailable("Slurm has not been answering")
    assert callers.ask(running)["stale"]


def test_an_unreadable_job_has_its_last_known_facts(callers: Callers, running: int) -> None:
    callers.slurm.down = SlurmMisbehaved("the answer cannot be read")
    slurm = callers.ask(running)
    assert (slurm["job_state"], slurm["stale"]) == ("RUNNING", True)


@pytest.fixture
def herd(service: Service) -> list[int]:
    """The jobs of a thousand open records; of every other one nothing but the state is known."""
    ids = []
    for number in range(500):
        service.slurm.put(5000 + number, JobState.PENDING if number % 4 else JobState.RUNNING)
        ids += [watch(service, 5000 + number)["slurm_job_id"], service.submit()[1]]
    return ids


@pytest.mark.parametrize("api", [OLDEST, NEWEST])
@pytest.mark.parametrize("is_polled", [True, False])
def test_a_thousand_callers_cost_what_the_budget_allows(
    service: Service, herd: list[int], api: str, *, is_polled: bool
) -> None:
    service.slurm.api = api
    callers = Callers(service, per_second=2)
    callers.requests()
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            if is_polled:
                callers.note_poll()
            answers = list(pool.map(callers.ask, herd))
            assert [slurm["job_id"] for slurm in answers] == herd
            assert not any("stale" in slurm for slurm in answers)
            callers.seconds += 1
    assert len(callers.requests()) <= 2 * 5 + 20


def test_one_job_that_fifty_callers_ask_for_costs_one_request(callers: Callers, running: int) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(callers.ask, [running] * 50))
    assert {slurm["job_state"] for slurm in answers} == {"RUNNING"}
    assert len(callers.requests()) == 1


def test_the_poll_of_the_leader_is_known_to_look_ups(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    began = utc_now() + SOON
    assert service.monitor.run_cycle(began)
    service.status.refresh(began)
    service.slurm.calls.clear()
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]
    assert (slurm["job_state"], as_of(slurm)) == ("RUNNING", began)
    assert service.slurm.calls == []


def test_an_open_circuit_uses_up_no_budget(service: Service) -> None:
    callers = Callers(service, per_second=0.1)
    _, job_id = service.submit()
    callers.slurm.known_down = SlurmUnavailable("Slurm has not been answering")
    for _ in range(20):
        assert callers.ask(job_id)["stale"]
    assert callers.requests() == []
    callers.slurm.known_down = None
    assert "stale" not in callers.ask(job_id)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMPLETING])
def test_facts_have_the_time_of_the_store(callers: Callers, running: int, state: JobState) -> None:
    callers.store_ahead = timedelta(minutes=5)
    callers.slurm.put(running, state)
    before = callers.now()
    slurm = callers.ask(running)
    assert slurm["job_state"] == state.value
    assert before <= as_of(slurm) <= callers.now()


def test_a_job_that_began_during_a_poll_is_not_shown_as_waiting_again(service: Service) -> None:
    callers = Callers(service)
    _, job_id = service.submit()
    poll_began = utc_now()
    assert callers.ask(job_id)["job_state"] == "PENDING"  # while the poll is under way
    service.slurm.put(job_id, JobState.RUNNING, nodes="n1")
    service.refresh(poll_began)
    slurm = callers.ask(job_id)
    assert (slurm["job_state"], slurm["nodes"]) == ("RUNNING", "n1")
    callers.note_poll()
    assert callers.ask(job_id)["job_state"] == "RUNNING"


def test_a_job_that_is_requeued_after_a_poll_began_is_shown_as_waiting(service: Service) -> None:
    callers = Callers(service)
    _, job_id = service.submit()
    service.slurm.put(job_id, JobState.RUNNING)
    poll_began = utc_now()
    service.slurm.put(job_id, JobState.PENDING, restarts=1)
    assert callers.ask(job_id)["job_state"] == "PENDING"
    service.slurm.put(job_id, JobState.RUNNING, restarts=0)
    service.refresh(poll_began)
    service.slurm.put(job_id, JobState.PENDING, restarts=1)
    assert callers.ask(job_id)["job_state"] == "PENDING"
