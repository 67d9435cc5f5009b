"""The method `gmail`: Google's API, as a service account acting for the sender or an authorised user."""

import base64
import json
from typing import Any, ClassVar, Self

from google.auth.exceptions import GoogleAuthError, RefreshError
from google.oauth2 import credentials, service_account
from google_auth_httplib2 import AuthorizedHttp
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from httplib2 import Http, HttpLib2Error

from app.constants import Settings
from app.errors import DeliveryFailed, SettingsError
from app.senders.base import Message, Sender, seconds_of
from app.senders.mail import MailParams, mail, parsed

_SCOPES = ["https://www.googleapis.com/auth/gmail.send"]
_SERVICE_ACCOUNT: Any = service_account.Credentials.from_service_account_info
_AUTHORISED_USER: Any = credentials.Credentials
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - no secret
_LIMITS = ("rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded")


class GmailSender(Sender):
    Params: ClassVar[type[MailParams]] = MailParams
    for_people = True

    def __init__(self, settings: Settings, secret: dict[str, Any]) -> None:
        self._settings = settings
        self._secret = secret

    @classmethod
    def configured(cls, settings: Settings) -> Self | None:
        """SettingsError for a file that cannot be used."""
        path = settings.NOTIFICATIONS_GMAIL_CREDENTIALS_PATH
        if path is None:
            return None
        try:
            sender = cls(settings, json.loads(path.read_text(encoding="utf-8")))
            sender._credentials("someone@example.com")
        except (OSError, ValueError, KeyError, GoogleAuthError) as error:
            words = f"is no key of a service account and no authorised user: {error}"
            raise SettingsError(f"NOTIFICATIONS_GMAIL_CREDENTIALS_PATH: {words}") from error
        return sender

    @staticmethod
    def receiver(params: MailParams) -> str:
        return parsed(params.recipient[0]).addr_spec.lower()

    def send(self, message: Message, params: MailParams) -> None:
        raw = base64.urlsafe_b64encode(mail(message, params).as_bytes()).decode()
        http = Http(timeout=self._settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS)
        http.follow_redirects = False
        authorised = AuthorizedHttp(self._credentials(parsed(params.sender).addr_spec), http=http)
        options = {"api_endpoint": self._settings.NOTIFICATIONS_GMAIL_API_URL}
        try:
            with build("gmail", "v1", http=authorised, client_options=options, cache_discovery=False) as api:
                sent = api.users().messages().send(userId="me", body={"raw": raw}).execute(num_retries=0)
        except RefreshError as error:
            raise _no_access(error, parsed(params.sender).addr_spec) from error
        except HttpError as error:
            raise _refused(error) from error
        except TypeError as error:  # the library trips over a token endpoint that answers no JSON
            words = "Gmail cannot be reached: what answers is not Google"
            raise DeliveryFailed(words, permanent=False) from error
        except (GoogleAuthError, HttpLib2Error, OSError) as error:
            raise DeliveryFailed(f"Gmail cannot be reached: {error}", permanent=False) from error
        if not isinstance(sent, dict) or "id" not in sent:  # by something in between
            raise DeliveryFailed("Gmail cannot be reached: what answers is not Gmail", permanent=False)

    def _credentials(self, sender: str) -> Any:
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


def _no_access(error: RefreshError, sender: str) -> DeliveryFailed:
    """Permanent if the token endpoint says so in its own form (RFC 6749, 5.2)."""
    said = error.args[1] if len(error.args) > 1 else None
    if error.retryable or not isinstance(said, dict) or "error" not in said:
        return DeliveryFailed("Gmail cannot be reached: Google gives out no tokens just now", permanent=False)
    return DeliveryFailed(f"Google gives no access for {sender}: {error.args[0]}", permanent=True)


def _refused(error: HttpError) -> DeliveryFailed:
    """403 stands for limits as well as for refusals: https://developers.google.com/gmail/api/guides/handle-errors"""
    status = int(error.resp.status)
    is_limit = status == 429 or (status == 403 and any(word in str(error.content) for word in _LIMITS))
    return DeliveryFailed(
        f"Gmail refuses the message: {status} {error.reason}",
        permanent=400 <= status < 500 and not is_limit,
        retry_after=seconds_of(error.resp.get("retry-after")),
    )
