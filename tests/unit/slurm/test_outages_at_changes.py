"""An outage during which slurmrestd changes or is not known yet, with a clock and without a network."""

from contextlib import suppress

import pytest

from app.errors import SlurmProxyError, SlurmReadAborted, SlurmUnavailable
from app.slurm.accounting import AccountingReader
from app.slurm.dialect import SUPPORTED_API_VERSIONS
from app.slurm.health_check import check_slurm_health
from app.slurm.reply import Reply
from tests.conftest import until
from tests.unit.slurm.test_outages import DOWN, TIME_OUT, UNSPECIFIED, Probing, Stage

NEW, OLD = SUPPORTED_API_VERSIONS[0], SUPPORTED_API_VERSIONS[-1]
REFUSED = Reply(511, {"errors": [{"error_number": 1007, "error": "Protocol authentication error"}]}, "")


def test_an_outage_in_which_slurm_is_upgraded_ends() -> None:
    stage = Probing()
    assert stage.poller.known_dialect is not None
    assert stage.poller.known_dialect.api == NEW
    stage.slurmrestd.api = OLD
    for _ in range(2):
        stage.probe()
    assert stage.callers.outage is None
    assert stage.poller.get("diag").status == 200


def test_a_version_that_a_probe_finds_is_discovered_once() -> None:
    stage = Probing()
    stage.poller.discovery.known = None
    stage.slurmrestd.api = OLD
    stage.slurmrestd.answers |= {"ping": (DOWN, 0.001), "diag": (UNSPECIFIED, 0.01)}
    stage.probe()
    assert stage.poller.known_dialect is not None
    assert stage.probe() == ["ping"]


def test_a_wrong_key_is_found_after_a_start_in_an_outage() -> None:
    """22.05 refuses a token as if it were down; only slurmdbd gives the reason."""
    stage = Probing()
    stage.poller.discovery.known = None
    stage.slurmrestd.answers |= {"ping": (UNSPECIFIED, 0.01), "diag": (UNSPECIFIED, 0.01)}
    stage.slurmrestd.answers["jobs"] = REFUSED, 0.01
    stage.probe()
    health = check_slurm_health(stage.poller, AccountingReader(stage.poller, 0))
    assert health.key_fault is not None


def test_reads_that_were_ended_by_an_outage_do_not_open_the_circuit_again() -> None:
    stage = Stage()
    stage.slurmrestd.answers["diag"] = SlurmReadAborted("ended"), 0.0
    for _ in range(5):
        with pytest.raises(SlurmUnavailable):
            stage.callers.get("diag")
    assert stage.callers.outage is None
    stage.slurmrestd.answers["diag"] = TIME_OUT, 0.0
    for _ in range(3):
        with suppress(SlurmProxyError):
            stage.callers.get("diag")
    until(lambda: stage.callers.outage is not None, 1, "an outage")
