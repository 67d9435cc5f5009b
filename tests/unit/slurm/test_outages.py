"""A session whose slurmctld goes down: what opens the circuit, with a clock and without a network."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from app.errors import SlurmAmbiguous, SlurmProxyError, SlurmUnavailable
from app.slurm.breaker import CircuitBreaker
from app.slurm.dialect import SUPPORTED_API_VERSIONS
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from tests.conftest import until

Answer = Reply | SlurmProxyError

UP = Reply(200, {"pings": [{"pinged": "UP"}]}, "")
DOWN = Reply(200, {"pings": [{"pinged": "DOWN"}]}, "")
FINE = Reply(200, {"errors": []}, "")
NO_CONTROLLER = Reply(502, {"errors": [{"error_number": 1800, "error": "Unable to contact"}]}, "")
UNSPECIFIED = Reply(500, {"errors": [{"error_number": -1, "error": "Unspecified error"}]}, "")
TIME_OUT = SlurmUnavailable("slurmrestd did not answer in time or broke off")


class Slurmrestd:
    """Stands where Connection does, with a clock: an answer takes as long as the test says."""

    host = "http://slurm.example"
    max_call_seconds = 36.0
    read_timeout = 30.0

    def __init__(self) -> None:
        self.now = 1000.0
        self.api = SUPPORTED_API_VERSIONS[0]
        self.aborted = 0
        self.answers: dict[str, tuple[Answer, float]] = {}
        self.asked: list[str] = []
        self.timeout: float | None = None  # of the last request
        self.meanwhile: Callable[[], object] = lambda: None  # happens while a request to diag waits

    def clock(self) -> float:
        return self.now

    def abort_reads(self) -> None:
        self.aborted += 1

    def send(self, request: SlurmRequest) -> Reply:
        if f"/{self.api}/" not in request.path:
            return Reply(404, {}, "")
        what = request.path.rpartition("/")[2]
        self.asked.append(what)
        self.timeout = request.timeout
        if what == "diag":
            self.meanwhile()
        answer, seconds = self.answers.get(what, (UP if what == "ping" else FINE, 0.002))
        self.now += seconds
        if isinstance(answer, SlurmProxyError):
            raise answer
        return answer


class Stage:
    """Two sessions with one circuit breaker, as the poller and callers have them."""

    def __init__(self) -> None:
        self.slurmrestd = Slurmrestd()
        wire: Any = self.slurmrestd
        self.probes = 0
        self.breaker = CircuitBreaker(self.count_probe, self.slurmrestd.clock)
        self.poller = Session(wire, "slurm", breaker=self.breaker)
        self.callers = Session(wire, "slurm", breaker=self.breaker, discovery=self.poller.discovery)
        for session in (self.poller, self.callers):
            session.get("partitions")

    def count_probe(self) -> None:
        self.probes += 1
        raise SlurmUnavailable("still down")


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_an_answer_that_proves_an_outage_opens_the_circuit_of_all_sessions_at_once(stage: Stage) -> None:
    stage.slurmrestd.answers["diag"] = NO_CONTROLLER, 9.0
    stage.poller.get("diag")
    with pytest.raises(SlurmUnavailable, match="has not been answering"):
        stage.callers.get("diag")
    assert stage.slurmrestd.asked.count("diag") == 1


def test_a_sign_of_an_outage_proves_nothing_if_another_call_was_answered_meanwhile(stage: Stage) -> None:
    stage.slurmrestd.meanwhile = lambda: stage.callers.get("partitions")
    stage.slurmrestd.answers["diag"] = NO_CONTROLLER, 0.01
    stage.poller.get("diag")
    assert stage.callers.outage is None


@pytest.mark.parametrize(("seconds", "is_down"), [(9.0, True), (0.01, False)])
def test_an_error_without_a_reason_proves_an_outage_only_if_it_came_late(
    stage: Stage, seconds: float, is_down: bool
) -> None:
    """22.05 refuses a token at once with the same error."""
    stage.slurmrestd.answers["diag"] = UNSPECIFIED, seconds
    stage.poller.get("diag")
    assert (stage.callers.outage is not None) is is_down


def test_time_outs_open_the_circuit_after_three_in_a_row(stage: Stage) -> None:
    stage.slurmrestd.answers["diag"] = TIME_OUT, 30.0
    for _ in range(2):
        with pytest.raises(SlurmUnavailable, match="in time"):
            stage.poller.get("diag")
    assert stage.callers.outage is None
    with pytest.raises(SlurmUnavailable, match="in time"):
        stage.callers.get("diag")
    assert stage.callers.outage is not None


def watching(stage: Stage, after: float) -> None:
    """Let a call wait for so many seconds while the loop of the monitor looks at it; it fails at last."""

    def look() -> None:
        stage.slurmrestd.now += after
        stage.poller.watch()

    stage.slurmrestd.meanwhile = look
    stage.slurmrestd.answers["diag"] = TIME_OUT, 0.0
    with suppress(SlurmUnavailable):
        stage.callers.get("diag")


def test_a_ping_notices_an_outage_while_a_call_waits(stage: Stage) -> None:
    stage.slurmrestd.answers["ping"] = DOWN, 0.001
    watching(stage, after=0.2)
    assert stage.callers.outage == "slurmctld does not answer slurmrestd"


def test_no_ping_is_sent_for_a_call_that_was_just_made(stage: Stage) -> None:
    pings = stage.slurmrestd.asked.count("ping")
    stage.slurmrestd.answers["ping"] = DOWN, 0.001
    watching(stage, after=0.05)
    assert stage.slurmrestd.asked.count("ping") == pings
    assert stage.callers.outage is None


@pytest.mark.parametrize("answer", [UP, Reply(404, {}, ""), Reply(503, {}, "", "empty"), UNSPECIFIED])
def test_a_slow_slurmctld_is_not_taken_for_down(stage: Stage, answer: Reply) -> None:
    """A ping that is answered at once, or with an error that proves nothing."""
    stage.slurmrestd.answers["ping"] = answer, 0.001
    watching(stage, after=8.0)
    assert stage.callers.outage is None


def test_a_slurmctld_that_answers_pings_alone_is_noticed_by_time_outs(stage: Stage) -> None:
    for _ in range(3):
        assert stage.callers.outage is None
        watching(stage, after=30.0)
    assert stage.callers.outage is not None


def test_a_ping_that_slurmctld_answers_after_a_stall_keeps_the_circuit_closed(stage: Stage) -> None:
    stage.slurmrestd.answers["ping"] = UP, 6.0
    watching(stage, after=0.2)
    assert stage.callers.outage is None


@pytest.mark.parametrize(
    "answer",
    [
        (TIME_OUT, 12.0),  # slurmrestd hangs
        (SlurmUnavailable("slurmrestd cannot be reached"), 0.001),
        (UNSPECIFIED, 9.0),  # 22.05
        (DOWN, 10.0),  # slurmctld has answered nothing for so long
    ],
)
def test_a_ping_without_an_answer_of_slurmctld_opens_the_circuit(
    stage: Stage, answer: tuple[Answer, float]
) -> None:
    stage.slurmrestd.answers["ping"] = answer
    watching(stage, after=0.2)
    assert stage.callers.outage is not None


def test_a_ping_proves_nothing_if_a_call_was_answered_meanwhile(stage: Stage) -> None:
    def answered() -> Reply:
        stage.breaker.calls.record_answer()
        return DOWN

    send = stage.slurmrestd.send

    def send_ping(request: SlurmRequest) -> Reply:
        reply = send(request)
        return answered() if request.path.endswith("/ping") else reply

    wire: Any = stage.slurmrestd
    wire.send = send_ping
    watching(stage, after=0.2)
    assert stage.callers.outage is None


def test_reads_end_once_when_the_circuit_opens(stage: Stage) -> None:
    ended: list[str] = []
    stage.breaker.call_on_outage(lambda: ended.append("reads"))
    for _ in range(5):
        stage.breaker.record_failure("time-out")
    assert ended == ["reads"], "the probe's own request must not be ended by a failure that comes late"


@pytest.mark.parametrize(("api", "aborted"), [("v0.0.45", 1), ("v0.0.42", 1), ("v0.0.40", 0), ("v0.0.38", 0)])
def test_reads_go_on_where_slurmrestd_may_not_tolerate_hang_ups(api: str, aborted: int) -> None:
    slurmrestd = Slurmrestd()
    slurmrestd.api = api
    wire: Any = slurmrestd
    session = Session(wire, "slurm")
    session.get("partitions")
    session.breaker.record_failure("time-out", proven_since=session.breaker.clock())
    assert session.outage is not None
    assert slurmrestd.aborted == aborted


@pytest.mark.parametrize(("seconds", "left"), [(12.0, 18.0), (29.0, 1.0), (30.0, None)])
def test_a_request_waits_for_a_late_ping_within_its_own_time(
    stage: Stage, seconds: float, left: float | None
) -> None:
    def end_ping() -> None:
        until(lambda: stage.breaker.calls.is_ping_late(), 5, "a late ping")
        stage.slurmrestd.now += seconds
        stage.breaker.calls.release_waiting()

    with stage.breaker.calls.pinging():
        stage.slurmrestd.now += 1
        ending = threading.Timer(0.1, end_ping)
        ending.start()
        if left is None:
            with pytest.raises(SlurmUnavailable, match="ping"):
                stage.callers.get("diag")
        else:
            assert stage.callers.get("diag").status == 200
            assert stage.slurmrestd.timeout == left
        ending.join()


def test_the_watch_probes_without_a_caller(stage: Stage) -> None:
    stage.slurmrestd.answers["diag"] = NO_CONTROLLER, 9.0
    stage.poller.get("diag")
    stage.poller.watch()
    assert stage.probes == 0
    stage.slurmrestd.now += 1
    stage.poller.watch()
    until(lambda: stage.probes == 1, 5, "a probe")


def test_a_reported_outage_is_probed_at_once(stage: Stage) -> None:
    stage.breaker.open_on_report("slurmctld is down")
    until(lambda: stage.probes == 1 and not stage.breaker._probing, 5, "a probe")
    with pytest.raises(SlurmUnavailable, match="still down"):
        stage.callers.get("diag")


def test_a_reported_outage_is_logged_as_one_line_each_at_its_beginning_and_end(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage.breaker.open_on_report("slurmctld is down")
    stage.breaker.open_on_report("slurmctld is down")
    until(lambda: not stage.breaker._probing, 5, "the end of the probe")
    stage.breaker.record_success()
    assert [record.getMessage() for record in caplog.records if record.name == "app.slurm.breaker"] == [
        "another process reports an outage of Slurm: slurmctld is down",
        "Slurm answers this process: the outage that another process reported is over here",
    ]
    assert "app.outages" not in {record.name for record in caplog.records}


class Probing(Stage):
    """The same with the session's own probe, which a test runs at a time of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker._probe = self.poller._prober.probe
        self.breaker.record_failure("down", proven_since=self.slurmrestd.now + 1)
        self.slurmrestd.asked.clear()

    def probe(self) -> list[str]:
        """Let the next probe end, and return its requests."""
        self.slurmrestd.asked.clear()
        self.slurmrestd.now += 1
        self.poller.watch()
        until(lambda: not self.breaker._probing, 5, "the end of the probe")
        return self.slurmrestd.asked


def test_a_probe_that_is_answered_closes_the_circuit() -> None:
    stage = Probing()
    assert stage.probe() == ["ping", "diag"]
    assert stage.callers.outage is None


def test_probes_only_ping_while_that_tells_of_the_outage_but_for_one_in_a_while() -> None:
    """A ping of 24.11 does not tell a refused token from an outage."""
    stage = Probing()
    stage.slurmrestd.answers |= {"ping": (DOWN, 0.001), "diag": (NO_CONTROLLER, 9.0)}
    assert stage.probe() == ["ping", "diag"]
    for _ in range(3):
        assert stage.probe() == ["ping"]
    stage.slurmrestd.now += 15
    stage.slurmrestd.answers["diag"] = Reply(511, {"errors": [{"error_number": 1007}]}, ""), 0.01
    assert stage.probe() == ["ping", "diag"]
    assert stage.callers.outage is None, "a slurmctld that refuses the token is up"


def test_a_slurmctld_that_answers_pings_alone_stays_down() -> None:
    stage = Probing()
    stage.slurmrestd.answers["diag"] = NO_CONTROLLER, 9.0
    stage.probe()
    assert stage.callers.outage is not None


def test_a_cancellation_during_an_outage_closes_no_circuit() -> None:
    stage = Stage()
    stage.slurmrestd.answers["7"] = Reply(403, {"errors": [{"error_number": 1}]}, ""), 10.0
    for _ in range(2):
        stage.breaker.record_failure("time-out")
    stage.callers.send(SlurmRequest("DELETE", "job/7"))
    stage.breaker.record_failure("time-out")
    assert stage.callers.outage is not None, "three failures in a row"


def test_an_ambiguous_submission_is_a_failure_that_proves_nothing(stage: Stage) -> None:
    stage.slurmrestd.answers["submit"] = SlurmAmbiguous("no answer"), 30.0
    with pytest.raises(SlurmAmbiguous):
        stage.callers.send(SlurmRequest("POST", "job/submit"))
    assert stage.callers.outage is None
