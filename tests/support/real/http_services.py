"""HTTP services on loopback that answer as the documentation of the real ones describes."""

import base64
import json
import secrets
import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.real.processes import free_port
from tests.support.real.scripted import Words, say

_LONGEST_WAIT = 60.0  # seconds that a client may take, or a hanging handler waits


@dataclass(frozen=True)
class Request:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Words | None = None  # said instead of all that


def json_answer(content: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **named})


class HttpService:
    """Enter it to serve on `port`. It keeps its port and its received requests from `stop` to `start`."""

    host = "127.0.0.1"

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.tls = tls
        self.requests: list[Request] = []  # all that came, refused or not
        self.answers: list[Answer] = []  # given one after the other, before those of the service's own mind
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def take(self, request: Request) -> Answer:
        """The service's own mind."""
        return Answer()

    def start(self) -> None:
        self._server = _Server((self.host, self.port), self)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.over.set()
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], service: HttpService) -> None:
        super().__init__(address, _Handler)
        self.service = service
        self.over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has had enough is no error; anything else ends up in the test's output."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _LONGEST_WAIT
    server: _Server

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        service = self.server.service
        service.requests.append(request)
        answer = service.answers.pop(0) if service.answers else service.take(request)
        if answer.raw is not None:
            self.close_connection = True
            say(self.connection, answer.raw, self.server.over)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class SlackService(HttpService):
    """https://docs.slack.dev/reference/methods/chat.postMessage"""

    def __init__(self) -> None:
        super().__init__()
        self.token = f"xoxb-{secrets.token_hex(12)}"
        self.channels = {"#jobs"}
        self.is_revoked = False
        self.messages: list[dict[str, Any]] = []

    def take(self, request: Request) -> Answer:
        if request.method != "POST" or request.path not in ("/api/chat.postMessage", "/api/auth.test"):
            return json_answer({"ok": False, "error": "unknown_method"})
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return json_answer({"ok": False, "error": "invalid_auth"})
        if self.is_revoked:
            return json_answer({"ok": False, "error": "token_revoked"})
        if request.path == "/api/auth.test":  # https://docs.slack.dev/reference/methods/auth.test
            return json_answer({"ok": True, "team": "cluster", "user": "slurm-proxy"})
        message = _slack_arguments(request)
        if message.get("channel") not in self.channels:
            return json_answer({"ok": False, "error": "channel_not_found"})
        if fault := _slack_fault(message):
            return json_answer({"ok": False, "error": fault})
        self.messages.append(message)
        stamp = f"1503435956.{len(self.messages):06}"
        return json_answer({"ok": True, "channel": "C123ABC456", "ts": stamp, "message": message})


def _slack_arguments(request: Request) -> dict[str, Any]:
    """From JSON, or from a form, whose structured fields are JSON in turn."""
    if request.headers["content-type"].startswith("application/json"):
        return cast("dict[str, Any]", request.json())
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    return {
        name: json.loads(value) if name in {"blocks", "metadata"} else value for name, value in form.items()
    }


def _slack_fault(message: Mapping[str, Any]) -> str | None:
    if not message.get("text") and not message.get("blocks"):
        return "no_text"
    for block in message.get("blocks", ()):
        text = block["text"]["text"]
        if block["type"] != "section" or not 1 <= len(text) <= 3000:
            return "invalid_blocks"
    metadata = message.get("metadata", {"event_type": "none", "event_payload": {}})
    is_sound = isinstance(metadata["event_type"], str) and isinstance(metadata["event_payload"], dict)
    return None if is_sound else "invalid_metadata_schema"


class GmailService(HttpService):
    """https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.messages/send

    And Google's token endpoint: https://developers.google.com/identity/protocols/oauth2/service-account
    """

    scope = "https://www.googleapis.com/auth/gmail.send"
    account = "slurm-proxy@project.iam.gserviceaccount.com"
    client_id, client_secret = "client-id", "the client's secret"

    def __init__(self) -> None:
        super().__init__()
        self.refresh_token = secrets.token_hex(12)
        self.is_revoked = False  # no access any more, by either kind of credentials
        self.refused: set[str] = set()  # recipients that are none
        self.subjects: list[str] = []  # in whose name service accounts have asked
        self.mails: list[EmailMessage] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._tokens: set[str] = set()

    def write_service_account(self, path: Path, token_url: str) -> None:
        """A credential file whose token endpoint is ours, or behind a proxy to it."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        secret = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": self.account,
            "client_id": "1",
            "token_uri": f"{token_url}/token",
        }
        path.write_text(json.dumps(secret))

    def write_authorised_user(self, path: Path) -> None:
        secret = {
            "type": "authorized_user",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_token,
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(secret))

    def take(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        if request.method == "POST" and path == "/token":
            return self._grant(request)
        if request.method == "POST" and path == "/gmail/v1/users/me/messages/send":
            return self._send(request)
        return google_error(404, "Not Found", "notFound", "NOT_FOUND")

    def _grant(self, request: Request) -> Answer:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        kind = form.get("grant_type")
        if self.is_revoked:
            words = "Token has been expired or revoked."
            return json_answer({"error": "invalid_grant", "error_description": words}, 400)
        if kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            fault = self._assertion_fault(form.get("assertion", ""))
        elif kind == "refresh_token":
            given = (form.get("client_id"), form.get("client_secret"), form.get("refresh_token"))
            is_known = given == (self.client_id, self.client_secret, self.refresh_token)
            fault = None if is_known else "Bad Request"
        else:
            return json_answer({"error": "unsupported_grant_type"}, 400)
        if fault:
            return json_answer({"error": "invalid_grant", "error_description": fault}, 400)
        token = f"ya29.{secrets.token_hex(12)}"
        self._tokens.add(token)
        return json_answer(
            {"access_token": token, "expires_in": 3599, "scope": self.scope, "token_type": "Bearer"}
        )

    def _assertion_fault(self, assertion: str) -> str | None:
        try:
            claims = jwt.decode(
                assertion,
                self._key.public_key(),
                algorithms=["RS256"],
                options={"require": ["iss", "sub", "exp", "iat", "aud"], "verify_aud": False},
            )
        except jwt.InvalidTokenError as error:
            return f"Invalid JWT: {error}"
        if not str(claims["aud"]).endswith("/token") or claims["iss"] != self.account:
            return "Invalid JWT: not of this account"
        if claims.get("scope") != self.scope:
            return "Invalid scope"
        self.subjects.append(claims["sub"])
        return None

    def _send(self, request: Request) -> Answer:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            return google_error(401, "Invalid Credentials", "authError", "UNAUTHENTICATED")
        raw = base64.urlsafe_b64decode(request.json()["raw"])
        mail = message_from_bytes(raw, policy=policy.default)
        if not mail["To"]:
            return google_error(400, "Recipient address required", "invalidArgument", "INVALID_ARGUMENT")
        if self.refused & {address.addr_spec for address in mail["To"].addresses}:
            return google_error(400, "Invalid To header", "invalidArgument", "INVALID_ARGUMENT")
        self.mails.append(mail)
        named = f"18c{len(self.mails):013x}"
        return json_answer({"id": named, "threadId": named, "labelIds": ["SENT"]})


def google_error(
    code: int, message: str, reason: str, status: str, domain: str = "global", **headers: str
) -> Answer:
    """https://developers.google.com/workspace/gmail/api/guides/handle-errors"""
    fault = {"domain": domain, "reason": reason, "message": message}
    error = {"code": code, "message": message, "errors": [fault], "status": status}
    return json_answer({"error": error}, code, **headers)


class WebhookReceiver(HttpService):
    """Verifies what comes by an independent implementation of the Standard Webhooks specification."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        self.events: list[tuple[Request, dict[str, Any]]] = []

    def take(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer(405)
        try:
            event = Webhook(self.secret).verify(request.body, request.headers)
        except WebhookVerificationError as error:
            return Answer(401, str(error).encode())
        self.events.append((request, event))
        return Answer(204)


class AppriseTarget(HttpService):
    """What Apprise's json:// posts to: https://github.com/caronc/apprise/wiki/Notify_Custom_JSON"""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []
        self.status = 200

    def take(self, request: Request) -> Answer:
        if self.status != 200:
            return Answer(self.status)
        self.messages.append(request.json())
        return Answer(200)
