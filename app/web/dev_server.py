"""The development server, which runs in threads of this process; production uses gunicorn (see docker/)."""

import errno
import logging
import re
import threading
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from flask import Flask
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from app.connections.answers import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    MAX_REQUEST_LINE,
    URI_TOO_LONG,
    build_error_answer,
)
from app.connections.client_socket import ClientSocket, ClientTooSlow
from app.connections.table import ConnectionTable
from app.constants import MAX_BODY_BYTES, Settings
from app.services import Services
from app.startup import run_start_checks
from app.web.request_slots import RequestSlots

logger = logging.getLogger(__name__)

_METHOD = re.compile("[A-Z]{3,20}")
_ROOM_TIMEOUT_SECONDS = 0.1  # how long the accepting thread waits for a connection to be closed


class Server:
    """A server of an application and its monitor, which runs as long as its `with` block."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        """Bind the address of the settings.

        Raises:
            SettingsError: Others can reach the address, and callers do not authenticate.
        """
        settings.check_address(settings.FLASK_APP_HOST, "FLASK_APP_HOST")
        self._services: Services = app.extensions["slurm_proxy"]
        self._settings = settings
        self._http = _HttpServer(
            settings.FLASK_APP_HOST, settings.FLASK_APP_PORT, app, ConnectionTable(settings)
        )
        self._thread = threading.Thread(target=self._http.serve_forever, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Return the URL to open, with an IPv6 address in brackets."""
        host = self._settings.FLASK_APP_HOST
        return f"http://{f'[{host}]' if ':' in host else host}:{self._http.server_port}"

    def __enter__(self) -> Self:
        """Run the checks of a start, and start the server."""
        run_start_checks(self._services, self._settings)
        self._services.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and its monitor; requests that wait for changes of tasks are answered at once."""
        self._services.waiting.stop()
        self._http.shutdown()
        self._http.server_close()
        self._services.stop()

    def wait(self) -> None:
        """Wait until the server ends, or an exception such as KeyboardInterrupt is raised here."""
        while self._thread.is_alive():
            self._thread.join(1)


class _RequestHandler(WSGIRequestHandler):
    """Handler of one request.

    A request that cannot be read is answered with JSON, and not quoted in the log.
    """

    connection: ClientSocket
    server: "_HttpServer"

    def handle(self) -> None:
        self.connection.begin_request()
        super().handle()

    def parse_request(self) -> bool:
        """Read the head of a request; answer an invalid head, and return False."""
        if len(self.raw_requestline) > MAX_REQUEST_LINE:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return False
        if not super().parse_request():
            return False
        if _METHOD.fullmatch(self.command) is None:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        return True

    def run_wsgi(self) -> None:
        """Run the application."""
        try:
            super().run_wsgi()
        except ValueError:  # the path is no URL
            self.send_error(HTTPStatus.BAD_REQUEST)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not valid. The library's `message` quotes the request, and is left out."""
        self.close_connection = True
        self.server.clients.count_unreadable_request()
        answers = {414: URI_TOO_LONG, 431: HEADERS_TOO_LARGE}
        self.wfile.write(build_error_answer(*answers.get(code, BAD_REQUEST)))

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        if isinstance(error, ClientTooSlow):
            self.connection.send_timeout_answer()


class _HttpServer(ThreadedWSGIServer):
    def __init__(self, host: str, port: int, app: Flask, clients: ConnectionTable) -> None:
        self.clients = clients
        application = RequestSlots(app, clients.capacity, clients.max_waiting, MAX_BODY_BYTES)
        super().__init__(host, port, application, _RequestHandler)

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection.

        Raises:
            OSError: None could be accepted now; the server's loop tries again.
        """
        self.clients.make_room()
        if not self.clients.wait_for_room(_ROOM_TIMEOUT_SECONDS):
            raise OSError(errno.EAGAIN, "there are too many connections")
        try:
            accepted, address = super().get_request()
        except OSError as error:
            self.clients.handle_accept_error(error)
            raise
        return self.clients.add(accepted), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an exception outside the application."""
        logger.exception("a request failed")
