"""The method `gmail`: Google's API, as a service account acting for the sender or an authorised user."""

import base64
import json
import ssl
from functools import cached_property
from typing import Any, Self

from google.auth.exceptions import GoogleAuthError, RefreshError
from google.oauth2 import credentials, service_account
from google_auth_httplib2 import AuthorizedHttp, Request
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from httplib2 import CA_CERTS, HttpLib2Error, Response

from app.constants import Settings
from app.errors import DeliveryFailed, SettingsError
from app.messages.placeholders import to_one_line
from app.senders.base import Message
from app.senders.deadline import Deadline
from app.senders.http import parse_retry_after, send_request
from app.senders.mail import MailParams, MailSender, build_mail, build_test_params
from app.senders.mail_addresses import parse_address

_SCOPES = ["https://www.googleapis.com/auth/gmail.send"]
_SERVICE_ACCOUNT: Any = service_account.Credentials.from_service_account_info
_AUTHORISED_USER: Any = credentials.Credentials
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - no secret
_LIMIT_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"}
# Reasons that lie in the operator's project and not in the message: no API, no scope, no domain permission.
_PROJECT_REASONS = {"accessNotConfigured", "insufficientPermissions", "domainPolicy"}


class _Http:
    """The part of `httplib2.Http` that Google's libraries use, with one deadline for a whole message."""

    def __init__(self, deadline: Deadline, timeout: float, trust: ssl.SSLContext) -> None:
        self._deadline = deadline
        self._timeout = timeout
        self._trust = trust

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        **_: Any,
    ) -> tuple[Response, bytes]:
        """Make a request; return head and body of the answer.

        Raises:
            OSError: No complete answer came.
        """
        sent = body.encode() if isinstance(body, str) else body or b""
        # The libraries request compressed answers, which are not decompressed here.
        plain = {name: value for name, value in (headers or {}).items() if name.lower() != "accept-encoding"}
        answer = send_request(
            self._deadline, method, uri, sent, plain, timeout=self._timeout, trust=self._trust
        )
        head = Response({**dict(answer.headers.items()), "status": str(answer.status)})
        head.reason = answer.reason
        return head, answer.content

    def close(self) -> None:
        """Do nothing: no connection outlives its request."""


class GmailSender(MailSender):
    """A channel to the API of Gmail."""

    def __init__(self, settings: Settings, secret: dict[str, Any]) -> None:
        """Create the channel. `secret`: the content of the credentials file."""
        self._settings = settings
        self._secret = secret

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the channel; None if no credentials are set.

        Raises:
            SettingsError: The file of the credentials cannot be used.
        """
        path = settings.NOTIFICATIONS_GMAIL_CREDENTIALS_PATH
        if path is None:
            return None
        try:
            sender = cls(settings, json.loads(path.read_text(encoding="utf-8")))
            sender._credentials("someone@example.com")
        except (OSError, ValueError, KeyError, GoogleAuthError) as error:
            words = f"is neither a key of a service account nor one of an authorised user: {error}"
            raise SettingsError(f"NOTIFICATIONS_GMAIL_CREDENTIALS_PATH: {words}") from error
        return sender

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Return the trusted certificate authorities, read once: reading takes longer than sending."""
        return ssl.create_default_context(cafile=CA_CERTS)

    def send(self, message: Message, params: MailParams) -> None:
        """Send one mail.

        Raises:
            DeliveryFailed: The mail was not sent. This is final if the cause is the message or its sender.
        """
        raw = base64.urlsafe_b64encode(build_mail(message, params).as_bytes()).decode()
        timeout = self._settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS
        options = {"api_endpoint": self._settings.NOTIFICATIONS_GMAIL_API_URL}
        try:
            with Deadline(2 * timeout) as deadline:
                http = _Http(deadline, timeout, self._trust)
                authorised = AuthorizedHttp(
                    self._credentials(parse_address(params.sender).addr_spec), http=http
                )
                with build(
                    "gmail", "v1", http=authorised, client_options=options, cache_discovery=False
                ) as api:
                    request = api.users().messages().send(userId="me", body={"raw": raw})
                    sent = request.execute(num_retries=0)
        except RefreshError as error:
            raise _token_refusal(error, parse_address(params.sender).addr_spec) from error
        except HttpError as error:
            raise _gmail_refusal(error) from error
        except (TypeError, ValueError) as error:  # the libraries fail so on answers that are not JSON
            words = "Gmail cannot be reached: the answer is not from Google"
            raise DeliveryFailed(words, permanent=False) from error
        except (GoogleAuthError, HttpLib2Error, OSError) as error:
            words = f"Gmail cannot be reached: {to_one_line(str(error))}"
            raise DeliveryFailed(words, permanent=False, is_of_channel=True) from error
        if not isinstance(sent, dict) or "id" not in sent:  # the answer of a server in between
            raise DeliveryFailed("Gmail cannot be reached: the answer is not from Gmail", permanent=False)

    @classmethod
    def params_for_receiver(cls, receiver: str, settings: Settings) -> dict[str, Any]:
        """Return the parameters of a test mail."""
        return build_test_params(receiver, settings, "")

    def check_login(self) -> bool:
        """Request a token for the first address of NOTIFICATIONS_MAIL_SENDERS, if there is one.

        Otherwise a service account requests a token for itself, which shows whether its key is valid.

        Raises:
            DeliveryFailed: Google gives no token.
        """
        senders = self._settings.NOTIFICATIONS_MAIL_SENDERS
        sender = next((address for address in senders if "@" in address), None)
        timeout = self._settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS
        try:
            with Deadline(2 * timeout) as deadline:
                self._credentials(sender).refresh(Request(_Http(deadline, timeout, self._trust)))
        except RefreshError as error:
            raise _token_refusal(error, sender or "this account") from error
        except (GoogleAuthError, HttpLib2Error, OSError, TypeError, ValueError) as error:
            words = f"Gmail cannot be reached: {to_one_line(str(error))}"
            raise DeliveryFailed(words, permanent=False, is_of_channel=True) from error
        return True

    def _credentials(self, sender: str | None) -> Any:
        if self._secret["type"] == "service_account":
            return _SERVICE_ACCOUNT(self._secret, scopes=_SCOPES, subject=sender)
        return _AUTHORISED_USER(
            None,
            refresh_token=self._secret["refresh_token"],
            token_uri=self._secret.get("token_uri", _TOKEN_URL),
            client_id=self._secret["client_id"],
            client_secret=self._secret["client_secret"],
            scopes=_SCOPES,
            quota_project_id=self._secret.get("quota_project_id"),
        )


def _token_refusal(error: RefreshError, sender: str) -> DeliveryFailed:
    """Return the error if Google gives no token (RFC 6749, 5.2): final only for an unknown sender."""
    reply = error.args[1] if len(error.args) > 1 else None
    if error.retryable or not isinstance(reply, dict) or "error" not in reply:
        words = "Gmail cannot be reached: Google issues no tokens at the moment"
        return DeliveryFailed(words, permanent=False, is_of_channel=True)
    is_of_sender = str(reply.get("error_description")).startswith("Invalid email or User ID")
    words = f"Google grants no access for {sender}: {error.args[0]}"
    return DeliveryFailed(words, permanent=is_of_sender, is_of_channel=not is_of_sender)


def _gmail_refusal(error: HttpError) -> DeliveryFailed:
    """Return the error for a message that Gmail refuses.

    403 stands for limits as well as for refusals: https://developers.google.com/gmail/api/guides/handle-errors
    """
    status, reasons = int(error.resp.status), _parse_reasons(error.content)
    is_limit = status == 429 or (status == 403 and reasons & _LIMIT_REASONS)
    is_of_project = status == 401 or (status == 403 and reasons & _PROJECT_REASONS)
    return DeliveryFailed(
        f"Gmail refuses the message: {status} {error.reason}",
        permanent=400 <= status < 500 and not is_limit and not is_of_project,
        retry_after=parse_retry_after(error.resp.get("retry-after")),
        is_of_channel=bool(is_of_project),
    )


def _parse_reasons(content: bytes) -> set[str]:
    try:
        return {str(item["reason"]) for item in json.loads(content)["error"]["errors"]}
    except (ValueError, RecursionError, LookupError, TypeError):  # not in Google's format
        return set()
