"""Answers of slurmrestd while slurmctld is down, hangs, or refuses the token, as each release gives them."""

from typing import Any

import pytest

from app.slurm.outage_signs import is_controller_up, may_hide_outage, proves_outage
from app.slurm.reply import Reply


def answer(status: int, *numbers: int, **body: Any) -> Reply:
    errors = [{"error_number": number, "error": "words"} for number in numbers]
    return Reply(status, {"errors": errors, **body}, "")


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (answer(502, 1800), 9.0),  # 24.11, 26.05: diag, submit
        (answer(502), 9.0),  # partitions
        (answer(500, -1), 9.0),  # jobs/state, job; 22.05: all but submissions
        (answer(500, 1800), 9.0),  # 22.05: submit
        (Reply(502, {}, "<html>Bad Gateway</html>", "not JSON"), 0.01),  # a proxy without slurmrestd
    ],
)
def test_answers_of_a_slurmctld_that_accepts_no_connection_prove_an_outage(
    reply: Reply, seconds: float
) -> None:
    assert proves_outage(reply, seconds)


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (answer(500, -1), 0.02),  # 22.05: a token that is refused
        (answer(504, 5004), 10.0),  # a slurmctld that hangs
        (Reply(503, {}, "", "empty"), 0.01),  # a proxy that is busy
        (Reply(504, {}, "", "empty"), 60.0),  # a proxy that has not waited long enough
        (Reply(500, {}, "", "not JSON"), 0.01),
    ],
)
def test_other_server_errors_prove_nothing(reply: Reply, seconds: float) -> None:
    assert not proves_outage(reply, seconds)


def test_a_cancellation_during_an_outage_is_no_refusal_of_slurmctld() -> None:
    assert may_hide_outage(answer(403, 1))
    assert not may_hide_outage(answer(403, 2002))


@pytest.mark.parametrize(
    ("pings", "is_up"),
    [
        ([{"pinged": "UP", "responding": True}], True),  # 24.11
        ([{"pinged": "DOWN", "responding": False}], False),
        ([{"responding": True, "status": "No error"}], True),  # 26.05
        ([{"responding": False}], False),
        ([{"ping": "UP"}], True),  # 22.05
        ([{"pinged": "DOWN"}], False),
        ([{"responding": False}, {"responding": True}], True),  # the second slurmctld has taken over
        ([{"responding": False}, {"responding": False}], False),
        ([{"responding": False}, {}], None),
        ([{"pinged": 1}], None),
        (["DOWN"], None),
        ([], None),
        (None, None),
        ("DOWN", None),
    ],
)
def test_a_ping_tells_whether_any_slurmctld_answers(pings: Any, is_up: bool | None) -> None:
    assert is_controller_up(answer(200, pings=pings)) is is_up


def test_a_ping_with_an_error_status_tells_nothing() -> None:
    assert is_controller_up(answer(500, -1, pings=[{"responding": False}])) is None
