"""An HTTP server on loopback that leaves every answer to one function."""

import json
import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Reply(Exception):
    """Exception that ends a request with a status and a body."""

    def __init__(self, status: int, body: dict[str, Any] | str) -> None:
        """Keep the status and the body of the answer."""
        super().__init__(status)
        self.status = status
        self.body = body


Route = Callable[[str, str, Message, bytes], dict[str, Any]]
"""Returns the body of an answer with status 200 to a method, a URL, headers and a body, or raises Reply."""


class HttpServer:
    """Server that calls `route` for each request, in a thread for each connection."""

    def __init__(self, route: Route, port: int = 0) -> None:
        """Start on 127.0.0.1, on any free port by default."""
        handler = type("Handler", (_Handler,), {"route": staticmethod(route)})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="local-cluster", daemon=True).start()

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece: no waiting for an acknowledgement in between
    route: Route

    def do_GET(self) -> None:
        self._handle("GET")

    def do_DELETE(self) -> None:
        self._handle("DELETE", self._read_body())

    def do_POST(self) -> None:
        self._handle("POST", self._read_body())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self, method: str, body: bytes = b"") -> None:
        try:
            self._send(200, self.route(method, self.path, self.headers, body))
        except Reply as reply:
            self._send(reply.status, reply.body)

    def _send(self, status: int, body: dict[str, Any] | str) -> None:
        kind = "text/plain" if isinstance(body, str) else "application/json"
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
