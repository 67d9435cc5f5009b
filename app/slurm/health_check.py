"""Check whether slurmctld and slurmdbd answer, and whether they accept the key of this service."""

from dataclasses import dataclass

from app.errors import SlurmMisbehaved, SlurmTokenRefused, SlurmUnavailable
from app.slurm.accounting import AccountingReader
from app.slurm.session import Session

_RECENT_SECONDS = 1.0  # for which an answer to any request shows that slurmctld works; polls are as frequent


@dataclass(frozen=True, slots=True)
class SlurmHealth:
    """Result of one check.

    Attributes:
        fault: Why slurmctld cannot be used.
        key_fault: Why Slurm does not accept the key.
        accounting_fault: Why slurmdbd cannot be used.
        has_accounting: Whether the cluster has a slurmdbd; None if that is not known.
    """

    fault: str | None = None
    key_fault: str | None = None
    accounting_fault: str | None = None
    has_accounting: bool | None = None


def check_slurm_health(session: Session, accounting: AccountingReader) -> SlurmHealth:
    """Return the health of Slurm: ask slurmdbd, and slurmctld unless it answered another request just now.

    slurmdbd is asked even while slurmctld is down: in 22.05 only slurmdbd says that a key is wrong.
    """
    fault, key_fault = _check_controller(session)
    try:
        has_accounting = accounting.check()
    except SlurmTokenRefused as error:
        return SlurmHealth(fault, key_fault=str(error))
    except (SlurmUnavailable, SlurmMisbehaved) as error:
        # 24.11 and newer: slurmdbd "does not answer" to a wrong key. Without slurmctld, slurmrestd may be
        # down.
        if fault is not None or key_fault is not None:
            return SlurmHealth(fault, key_fault)
        return SlurmHealth(fault, accounting_fault=str(error), has_accounting=True)
    return SlurmHealth(fault, key_fault, has_accounting=has_accounting)


def _check_controller(session: Session) -> tuple[str | None, str | None]:
    """Return why slurmctld cannot be used, and why it does not accept the key."""
    if session.answered_within(_RECENT_SECONDS):
        return None, None
    try:
        reply = session.get("diag")
    except SlurmTokenRefused as error:
        return None, str(error)
    except (SlurmUnavailable, SlurmMisbehaved) as error:
        return str(error), None
    if reply.status == 200 and not reply.fault:
        return None, None
    return f"slurmctld does not answer: {reply.complaint()}", None
