"""gunicorn's threaded worker, with a thread for each connection and a deadline for each client."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import TConn, ThreadWorker

from app import MAX_BODY_BYTES
from app.connections.table import ConnectionTable
from app.request_slots import RequestSlots

_LINGER_SECONDS = 2.0
_ROOM_SECONDS = 0.1  # how often room is made while no connection is accepted


class Connection(TConn):  # type: ignore[misc]
    """A connection whose thread has ended it gracefully before the main loop closes it."""

    def __init__(self, cfg: Any, client: Any, address: Any, server: Any) -> None:
        super().__init__(cfg, client, address, server)
        self.client_socket = client
        self.data_ready = True  # its thread may wait for the request: there is one for each connection

    def close(self, graceful: bool = False) -> None:
        """Close the connection at once: waiting for the client here would stop the main loop."""
        util.close(self.sock)
        self.client_socket.close()


class Worker(ThreadWorker):  # type: ignore[misc]
    """A worker that slow or idle clients cannot block, however many there are.

    gunicorn's setting `threads` limits the requests that run at a time, not the connections.
    """

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.clients = ConnectionTable(self.wsgi.config["SLURM_PROXY_SETTINGS"])
        self.wsgi.wsgi_app = RequestSlots(self.wsgi.wsgi_app, self.cfg.threads, MAX_BODY_BYTES)
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
        super().wait_for_and_dispatch_events(timeout if self._accepting else min(timeout, _ROOM_SECONDS))

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
            conn.client_socket.answer_timeout()
            conn.client_socket.begin_linger(_LINGER_SECONDS)
            util.close_graceful(conn.sock, _LINGER_SECONDS)
        return keeps_open

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop, without waiting for requests that have not arrived yet."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(self.clients.evict_reading)

    def _handle_and_finish(self, conn: Connection) -> None:
        result: Future[Any] = Future()
        try:
            result.set_result(self.handle(conn))
        except BaseException as error:  # finish_request() raises it again, and closes the connection
            result.set_exception(error)
        self.method_queue.defer(self.finish_request, conn, result)
