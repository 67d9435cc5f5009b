"""Ping slurmctld, and probe whether an outage is over, even while the circuit breaker is open."""

from collections.abc import Callable
from typing import Protocol

from app.errors import SlurmTokenRefused, SlurmUnavailable
from app.slurm.dialect import Dialect
from app.slurm.outage_signs import is_controller_up, proves_outage
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest

NO_CONTROLLER = "slurmctld does not answer slurmrestd"
_PING_SECONDS = 10.5  # for the answer to a ping; slurmrestd waits up to 10 s for a slurmctld that hangs
_DIAGNOSTICS_INTERVAL = 15.0  # seconds between two probes that can tell a refused token from an outage


class ProbedSession(Protocol):
    """Session with slurmrestd, as far as a prober needs it."""

    @property
    def max_call_seconds(self) -> float:
        """Return the seconds that one request may take."""

    @property
    def known_dialect(self) -> Dialect | None:
        """Return the dialect, if it is known."""

    def exchange(self, request: SlurmRequest) -> Reply:
        """Make a request, without the circuit breaker."""

    def read_diagnostics(self) -> Reply:
        """Return slurmctld's diagnostics, without the circuit breaker."""


class Prober:
    """Prober of one session with slurmrestd."""

    def __init__(self, session: ProbedSession, clock: Callable[[], float]) -> None:
        """Make a prober. `clock`: seconds of a monotonic clock."""
        self._session = session
        self._clock = clock
        self._diagnosed_at = float("-inf")

    def ping(self) -> bool | None:
        """Return whether any slurmctld answers slurmrestd; None if the answer to the ping is unclear.

        Raises:
            SlurmUnavailable: slurmrestd does not answer, or slurmctld has not answered it for long (22.05).
            SlurmMisbehaved: Slurm does not accept the token.
        """
        if (dialect := self._session.known_dialect) is None:
            return None
        began = self._clock()
        timeout = min(_PING_SECONDS, self._session.max_call_seconds)
        reply = self._session.exchange(SlurmRequest("GET", f"/slurm/{dialect.api}/ping", timeout=timeout))
        if reply.status >= 500 and proves_outage(reply, self._clock() - began):
            raise SlurmUnavailable(f"slurmrestd answered {reply.status}: {reply.complaint()}")
        return is_controller_up(reply)

    def probe(self) -> None:
        """Find out whether slurmctld answers: by a ping, then by a request unless the ping shows an outage.

        A slurmctld that refuses the token is up; it answers each request with that refusal. On 24.11 a ping
        does not distinguish such a refusal from an outage. So every 15 s a request follows in any case.

        Raises:
            SlurmUnavailable: slurmctld does not answer.
            SlurmMisbehaved: slurmrestd offers no version that is supported here.
        """
        try:
            is_recent = self._clock() - self._diagnosed_at < _DIAGNOSTICS_INTERVAL
            if self.ping() is False and is_recent:
                raise SlurmUnavailable(NO_CONTROLLER)
            self._diagnosed_at = self._clock()
            reply = self._session.read_diagnostics()
        except SlurmTokenRefused:
            return
        if reply.status != 200 or reply.fault:
            raise SlurmUnavailable(f"slurmrestd answered {reply.complaint()}")
