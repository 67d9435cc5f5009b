"""The session with one slurmrestd: the API version in use, and a circuit breaker for outages of Slurm."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from app.errors import (
    Forbidden,
    RequestTooLong,
    SlurmAmbiguous,
    SlurmBusy,
    SlurmMisbehaved,
    SlurmReadAborted,
    SlurmTokenRefused,
    SlurmUnavailable,
)
from app.outages import OutageLog
from app.slurm.breaker import CircuitBreaker
from app.slurm.connection import Connection
from app.slurm.dialect import Dialect
from app.slurm.discovery import Discovery
from app.slurm.outage_signs import may_hide_outage, proves_outage
from app.slurm.prober import NO_CONTROLLER, Prober
from app.slurm.reply import Reply
from app.slurm.request import Query, SlurmRequest
from app.slurm.unreadable_answers import UnreadableAnswers

_ACCOUNTING = "requests for accounting"
_BAD_TOKEN = 1007
_NO_ENTRY = 9003  # slurmdbd has no such job
_REFUSAL_WORDS = (
    "Slurm does not accept this service's token: the key must be the cluster's, and the clocks must agree"
)


class Session:
    """Session with one slurmrestd. Thread-safe.

    While Slurm is known to be down, every call raises SlurmUnavailable at once.
    """

    def __init__(
        self,
        connection: Connection,
        service_user: str,
        refused_users: Collection[str] = (),
        outages: OutageLog | None = None,
        breaker: CircuitBreaker | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        """Make a session, which connects at the first call.

        Args:
            connection: The connection to slurmrestd.
            service_user: The user of requests that no caller asked for.
            refused_users: Users for which no token is made.
            outages: The log of outages.
            breaker: The circuit breaker of another session with the same slurmrestd, to share it.
            discovery: The discovery of that session, to share it, too.
        """
        self._outages = outages or OutageLog()
        self._connection = connection
        self._service_user = service_user
        self._refused_users = refused_users
        self.discovery = discovery or Discovery(connection.host)
        self.breaker = breaker or CircuitBreaker(lambda: self._prober.probe(), outages=self._outages)
        self.breaker.call_on_outage(self._abort_reads)
        self._prober = Prober(self, self.breaker.clock)
        self._unreadable = UnreadableAnswers()
        self._answered_at = float("-inf")  # when slurmctld answered its last request, unless with a fault
        self.token_fault: str | None = None  # why Slurm refused the token of the last request

    @property
    def max_call_seconds(self) -> float:
        """Return the seconds that one request may take: see Connection."""
        return self._connection.max_call_seconds

    @property
    def busy_seconds(self) -> float:
        """Return for how long slurmrestd has been busy with requests: see BusyTime."""
        return self._connection.busy_time.seconds

    @property
    def known_dialect(self) -> Dialect | None:
        """Return the dialect, without a request; None if it was never discovered, or is gone."""
        return self.discovery.known

    @property
    def outage(self) -> str | None:
        """Return why Slurm is known to be down, without a request; None while it is not."""
        return self.breaker.reason

    def answered_within(self, seconds: float) -> bool:
        """Return whether slurmctld answered the last request without a fault, at most `seconds` ago."""
        return self.outage is None and self.breaker.clock() - self._answered_at <= seconds

    def require_up(self) -> None:
        """Check the circuit breaker, without a request.

        Raises:
            SlurmUnavailable: Slurm is known to be down.
        """
        self.breaker.require_closed()

    def dialect(self) -> Dialect:
        """Return the newest dialect that slurmrestd and this service know, discovered at the first call.

        Raises:
            NoCommonVersion: slurmrestd offers no version that this service supports.
        """
        if (dialect := self.known_dialect) is not None:
            return dialect
        self.require_up()
        return self.discovery.find(self._exchange_for_discovery)

    def get(
        self, path: str, query: Query = (), timeout: float | None = None, max_bytes: int | None = None
    ) -> Reply:
        """Read from slurmctld as the service's own user: see `send`."""
        return self.send(SlurmRequest("GET", path, query=query, timeout=timeout, max_bytes=max_bytes))

    def send(self, request: SlurmRequest) -> Reply:
        """Make one request to slurmctld; its path is relative to /slurm/<version>/.

        Connection.send raises further exceptions.

        Raises:
            Forbidden: Every action is refused for that user; no token is made.
            SlurmMisbehaved: Slurm does not accept the token.
        """
        if request.user and request.user in self._refused_users:
            raise Forbidden(f"this server does not act as {request.user}")
        path = f"/slurm/{self.dialect().api}/{request.path}"
        request = self._wait_for_ping(replace(request, path=path))
        with self._counting_failures() as began:
            reply = self.exchange(request)
        if not self._forget_dialect_if_gone(reply):
            self._report_to_breaker(request.path, reply, began)
        self._unreadable.check(request, reply)
        return reply

    def read_accounting(
        self, query: Query, timeout: float | None = None, *, even_while_down: bool = False
    ) -> Reply:
        """Read jobs from slurmdbd, whose outages do not count as outages of Slurm.

        With `even_while_down`, the request is made even while the circuit breaker is open.
        """
        dialect = self.discovery.find(self.exchange) if even_while_down else self.dialect()
        request = SlurmRequest("GET", f"/slurmdb/{dialect.api}/jobs", query=query, timeout=timeout)
        if not even_while_down:
            self.require_up()
        try:
            reply = self.exchange(request)
        except RequestTooLong:
            raise
        except SlurmUnavailable as error:
            self._outages.record_failure("slurmdbd", str(error), _ACCOUNTING)
            raise
        if (fault := _accounting_fault(reply)) is None:
            self._outages.record_success(_ACCOUNTING)
        else:
            self._outages.record_failure("slurmdbd", fault, _ACCOUNTING)
        self._unreadable.check(request, reply)
        return reply

    def read_diagnostics(self, expires: datetime | None = None) -> Reply:
        """Return slurmctld's diagnostics, even while the circuit breaker is open.

        Args:
            expires: The end of the token, if it is not to have its usual lifetime.

        Raises:
            SlurmUnavailable: slurmrestd does not answer.
            SlurmMisbehaved: slurmrestd offers no version that is supported here.
        """
        dialect = self.discovery.find(self.exchange)
        reply = self.exchange(SlurmRequest("GET", f"/slurm/{dialect.api}/diag", expires=expires))
        self._forget_dialect_if_gone(reply)
        return reply

    def watch(self) -> None:
        """Probe if a probe is due, and ping slurmctld while calls wait and none is answered.

        A loop calls this often. A ping proves an outage if its answer reports one, or if it gets no answer.
        It proves nothing if a call has been answered since the ping began.
        """
        self.breaker.probe_if_due()
        if self.breaker.is_open or not self.breaker.calls.is_ping_due():
            return
        with self.breaker.calls.pinging() as began:
            try:
                is_up = self._prober.ping()
            except (SlurmBusy, SlurmMisbehaved):
                return
            except SlurmUnavailable as error:
                self.breaker.record_failure(str(error), proven_since=began)
                return
            if is_up:  # a slurmctld that answers nothing else is still to be noticed
                self.breaker.calls.record_answer()
            elif is_up is False:
                self.breaker.record_failure(NO_CONTROLLER, proven_since=began)

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()

    def exchange(self, request: SlurmRequest) -> Reply:
        """Make a request with a whole path, as the service's own user if it names none.

        The circuit breaker neither stops the request nor learns its outcome.
        """
        is_for_controller = request.path.startswith("/slurm/") and not request.path.endswith("/ping")
        if is_for_controller:
            self._answered_at = float("-inf")
        reply = self._connection.send(replace(request, user=request.user or self._service_user))
        if reply.status in (401, 511) or any(number == _BAD_TOKEN for number, _ in reply.errors()):
            self.token_fault = _REFUSAL_WORDS
            raise SlurmTokenRefused(_REFUSAL_WORDS)
        if reply.status == 200 and not reply.fault and not request.path.endswith("/ping"):
            self.token_fault = None  # slurmrestd answers a ping itself, whatever the token
            if is_for_controller:
                self._answered_at = self.breaker.clock()
        return reply

    def _exchange_for_discovery(self, request: SlurmRequest) -> Reply:
        """Make a request. A failure that several threads share is thus counted once."""
        with self._counting_failures():
            return self.exchange(request)

    def _forget_dialect_if_gone(self, reply: Reply) -> bool:
        """Return whether slurmrestd no longer offers the version; it is then discovered at the next call."""
        is_gone = reply.status == 404 and not reply.body
        if is_gone:
            self.discovery.known = None
        return is_gone

    def _abort_reads(self) -> None:
        """End the reads that wait for slurmctld, where slurmrestd is known to tolerate that."""
        if (dialect := self.known_dialect) is not None and dialect.tolerates_hang_ups:
            self._connection.abort_reads()

    def _wait_for_ping(self, request: SlurmRequest) -> SlurmRequest:
        """Wait while a ping is late; return the request with the time that is left to it.

        Raises:
            SlurmUnavailable: The ping has not been answered in the time of the request.
        """
        calls = self.breaker.calls
        if not calls.is_ping_late():
            return request
        timeout = request.timeout or self._connection.read_timeout
        left = timeout - calls.wait_for_ping(timeout)
        if left <= 0:
            raise SlurmUnavailable("slurmctld has not answered a ping in time")
        return replace(request, timeout=left)

    @contextmanager
    def _counting_failures(self) -> Iterator[float]:
        """Report a request without an answer to the circuit breaker; yield the time of its beginning.

        Raises:
            SlurmUnavailable: The circuit is open.
        """
        self.breaker.require_closed()
        with self.breaker.calls.waiting() as began:
            try:
                yield began
            except (SlurmBusy, SlurmReadAborted, RequestTooLong):
                raise
            except SlurmTokenRefused:
                self.breaker.calls.record_answer()
                raise
            except (SlurmUnavailable, SlurmAmbiguous) as error:
                self.breaker.record_failure(str(error))
                raise

    def _report_to_breaker(self, path: str, reply: Reply, began: float) -> None:
        """Report to the circuit breaker whether an answer came from slurmctld.

        A server error without a refusal of Slurm's own means that slurmctld does not answer. An answer that
        is not JSON did not come from Slurm and proves nothing. slurmrestd answers a ping itself. A submission
        that a submit plugin refuses is answered with the error number -1.
        """
        is_refusal_by_plugin = path.endswith("/submit") and reply.is_unspecified_error
        if path.endswith("/ping") or is_refusal_by_plugin or may_hide_outage(reply):
            return
        if reply.status >= 500 and not reply.refusals():
            answer = f"slurmrestd answered {reply.status}: "
            proven_since = began if proves_outage(reply, self.breaker.clock() - began) else None
            reason, details = answer + reply.complaint(), answer + reply.full_complaint()
            self.breaker.record_failure(reason, details, proven_since=proven_since)
        elif reply.status != 200 or not reply.fault:
            self.breaker.record_success()


def _accounting_fault(reply: Reply) -> str | None:
    """Return the fault of an answer that is not from slurmdbd; None without a fault, or a slurmdbd."""
    if reply.status == 404 and not reply.body:
        return None
    is_answer = reply.status == 200 and all(number == _NO_ENTRY for number, _ in reply.errors())
    return None if is_answer else reply.full_complaint()
