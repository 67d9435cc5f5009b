"""The check of Slurm's health, beside other requests of the same session, with a clock."""

from contextlib import suppress

import pytest

from app.errors import SlurmProxyError, SlurmTokenRefused
from app.slurm.accounting import AccountingReader
from app.slurm.health_check import SlurmHealth, check_slurm_health
from tests.unit.slurm.test_outages import NO_CONTROLLER, TIME_OUT, UNSPECIFIED, Answer, Stage

IN_SLURMDBD = "jobs"


def check(stage: Stage) -> tuple[list[str], SlurmHealth]:
    """Return what a check asks, and its result."""
    stage.slurmrestd.asked.clear()
    health = check_slurm_health(stage.poller, AccountingReader(stage.poller, 0))
    return stage.slurmrestd.asked, health


def test_a_check_asks_slurmctld_only_if_nothing_was_answered_for_a_second() -> None:
    stage = Stage()
    assert check(stage)[0] == [IN_SLURMDBD]
    stage.slurmrestd.now += 1.1
    assert check(stage)[0] == ["diag", IN_SLURMDBD]
    assert check(stage)[0] == [IN_SLURMDBD]


@pytest.mark.parametrize("failure", [TIME_OUT, UNSPECIFIED, SlurmTokenRefused("a wrong key")])
def test_a_check_asks_slurmctld_if_the_last_request_failed(failure: Answer) -> None:
    stage = Stage()
    stage.slurmrestd.answers["partitions"] = failure, 0.01
    with suppress(SlurmProxyError):
        stage.poller.get("partitions")
    assert check(stage)[0] == ["diag", IN_SLURMDBD]


def test_a_check_reports_an_outage_right_after_an_answer() -> None:
    stage = Stage()
    stage.slurmrestd.answers["diag"] = NO_CONTROLLER, 0.1
    stage.callers.get("diag")
    assert check(stage)[1].fault is not None
