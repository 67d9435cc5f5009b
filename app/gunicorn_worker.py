"""The threaded worker of gunicorn, with a thread for each connection and a deadline for each client."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.message import Request
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.connections.answers import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    MAX_REQUEST_LINE,
    URI_TOO_LONG,
    build_error_answer,
)
from app.connections.table import ConnectionTable
from app.constants import MAX_BODY_BYTES
from app.web.request_slots import RequestSlots

logger = logging.getLogger(__name__)

_LINGER_SECONDS = 2.0  # for which a client may read an answer after the connection is shut down
_NEXT_REQUEST_SECONDS = 0.05  # for which a thread waits for the next request on its connection
_ARRIVAL_SECONDS = 0.5  # for which a worker that stops waits for requests
_EVICTION_SECONDS = 0.1  # how often room is made while no connection is accepted


_Answer = tuple[HTTPStatus, str, str]  # status, code and sentence
_NOT_IMPLEMENTED = (
    HTTPStatus.NOT_IMPLEMENTED,
    "not_implemented",
    "the header Transfer-Encoding must be: chunked",
)
_EXPECTATION_FAILED = (
    HTTPStatus.EXPECTATION_FAILED,
    "expectation_failed",
    "the header Expect must be: 100-continue",
)
_BAD_FIRST_LINE = (
    HTTPStatus.BAD_REQUEST,
    "bad_request",
    "the first line of the request is not valid: it must be <METHOD> <path> HTTP/1.1",
)
_BAD_HEADER = (
    HTTPStatus.BAD_REQUEST,
    "bad_request",
    "a header of the request is not valid: each must be one line, <name>: <value>",
)
_FAILED = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "the server failed; its log says why")
_OUTSIDE_PREFIX = (
    HTTPStatus.NOT_FOUND,
    "not_found",
    "there is no such route; the routes of this server begin with another path",
)
# The answers to requests that do not reach the application, by gunicorn's error. The first match counts.
_ANSWERS: tuple[tuple[Any, _Answer], ...] = (
    (errors.InvalidResponseHeader | errors.InvalidResponseHeaderName, _FAILED),
    (errors.LimitRequestLine, URI_TOO_LONG),
    (errors.LimitRequestHeaders, HEADERS_TOO_LARGE),
    (errors.UnsupportedTransferCoding, _NOT_IMPLEMENTED),
    (errors.ExpectationFailed, _EXPECTATION_FAILED),
    (errors.InvalidRequestLine | errors.InvalidRequestMethod | errors.InvalidHTTPVersion, _BAD_FIRST_LINE),
    (errors.InvalidHeader | errors.InvalidHeaderName | errors.ObsoleteFolding, _BAD_HEADER),
    (errors.ConfigurationProblem, _OUTSIDE_PREFIX),  # the path does not begin with SCRIPT_NAME
    (errors.ParseException, BAD_REQUEST),
)


class LongRequest(Request):  # type: ignore[misc]
    """A request whose first line may be longer than gunicorn's setting `limit_request_line` allows."""

    def parse(self, unreader: Any) -> Any:
        """Read the head of the request."""
        self.limit_request_line = self._fast_limit_request_line = MAX_REQUEST_LINE
        return super().parse(unreader)


class Connection(TConn):  # type: ignore[misc]
    """A connection whose thread has ended it gracefully before the main loop closes it."""

    def __init__(self, cfg: Any, client: Any, address: Any, server: Any) -> None:
        """Accept `client`, a socket of ConnectionTable."""
        super().__init__(cfg, client, address, server)
        self.client_socket = client
        self.data_ready = True  # its thread may wait for the request: there is one for each connection

    def init(self) -> None:
        """Make the parser of requests."""
        super().init()
        self.parser.mesg_class = LongRequest

    def close(self, graceful: bool = False) -> None:
        """Close the connection at once, because waiting for the client would stop the main loop."""
        util.close(self.sock)
        self.client_socket.close()


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker that slow or idle clients cannot block, however many there are.

    gunicorn's setting `threads` limits the requests that run at a time, not the connections.
    """

    def load_wsgi(self) -> None:
        """Load the application, and make a table for its connections."""
        super().load_wsgi()
        self.clients = ConnectionTable(self.wsgi.config["SLURM_PROXY_SETTINGS"])
        self.wsgi.wsgi_app = RequestSlots(
            self.wsgi.wsgi_app, self.cfg.threads, self.clients.max_waiting, MAX_BODY_BYTES
        )
        self.worker_connections = self.max_keepalived = self.clients.capacity
        self.tpool = ThreadPoolExecutor(self.clients.capacity, thread_name_prefix="client")

    def accept(self, listener: Any) -> None:
        """Accept one connection; the worker goes on if files or memory have run out."""
        try:
            accepted, address = listener.accept()
        except OSError as error:
            self.clients.handle_accept_error(error)
            return
        self.nr_conns += 1
        client = self.clients.add(accepted)
        self.enqueue_req(Connection(self.cfg, client, address, listener.getsockname()))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Make room for connections, and wait for events on them."""
        self.clients.make_room()
        super().wait_for_and_dispatch_events(timeout if self._accepting else min(timeout, _EVICTION_SECONDS))

    def enqueue_req(self, conn: Connection) -> None:
        """Have a thread handle the next request of a connection."""
        with suppress(RuntimeError):  # no further thread can be started: one that runs handles it later
            self.tpool.submit(self._handle_and_finish, conn)

    def handle(self, conn: Connection) -> Any:
        """Handle one request; return whether the connection may bring another one."""
        conn.client_socket.begin_request()
        keeps_open = super().handle(conn)
        if keeps_open:
            conn.client_socket.become_idle()
        else:
            conn.client_socket.send_timeout_answer()
            conn.client_socket.begin_linger(_LINGER_SECONDS)
            util.close_graceful(conn.sock, _LINGER_SECONDS)
        return keeps_open

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop, without waiting long for requests that are arriving, or for changes of tasks."""
        super().handle_exit(sig, frame)
        # At a SIGTERM during the start there is no table of clients yet; the queue is read after the start.
        self.method_queue.defer(self._evict_reading_soon)
        self.method_queue.defer(lambda: self.wsgi.extensions["slurm_proxy"].waiting.stop())

    def _evict_reading_soon(self) -> None:
        """Wait a moment for requests that are arriving, because a client may send head and body apart.

        No signal handler may start a thread: the main loop may be starting one.
        """
        timer = threading.Timer(_ARRIVAL_SECONDS, self.clients.evict_reading)
        timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started; the graceful time-out ends the requests
            timer.start()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be read or answered; the JSON quotes nothing of the request.

        gunicorn's own method answers with HTML, and quotes the request in the answer and in the log.
        """
        answer = next((answer for kind, answer in _ANSWERS if isinstance(exc, kind)), _FAILED)
        if answer is _FAILED:
            logger.error("a request failed", exc_info=exc)
        elif answer is not _OUTSIDE_PREFIX:
            self.clients.count_unreadable_request()
        with suppress(OSError):
            client.sendall(build_error_answer(*answer))

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Return whether another request may follow; drop what is left of this request's body."""
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except errors.ParseException:  # the rest cannot be read, but this request was answered
            self.clients.count_unreadable_request()
            return False

    def _handle_and_finish(self, conn: Connection) -> None:
        """Handle requests in a thread, and pass the result of the last one to the main loop.

        The main loop waits for requests that come later. Passing a request from the main loop to a thread
        takes a fifth of the time of a short request.
        """
        result: Future[Any] = Future()
        try:
            keeps_open = self.handle(conn)
            while keeps_open and self._has_next_request(conn):
                keeps_open = self.handle(conn)
            result.set_result(keeps_open)
        except BaseException as error:  # finish_request() raises it again, and closes the connection
            result.set_exception(error)
        self.method_queue.defer(self.finish_request, conn, result)

    def _has_next_request(self, conn: Connection) -> bool:
        """Wait a moment for another request on a connection; return whether there is one, or its end."""
        if not self.alive:  # the main loop closes the connection
            return False
        has_read_ahead = bool(conn.parser.unreader.buf.getvalue())
        return has_read_ahead or conn.client_socket.wait_for_data(_NEXT_REQUEST_SECONDS)
