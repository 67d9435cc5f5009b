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
_AUTHORISED_USER: Any = credentials.Credentials.from_authorized_user_info
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

    def receiver(self, params: MailParams) -> str:
        return params.recipient[0].lower()

    def send(self, message: Message, params: MailParams) -> None:
        raw = base64.urlsafe_b64encode(mail(message, params).as_bytes()).decode()
        http = Http(timeout=self._settings.NOTIFICATIONS_HTTP_TIMEOUT_SECONDS)
        http.follow_redirects = False
        authorised = AuthorizedHttp(self._credentials(parsed(params.sender).addr_spec), http=http)
        options = {"api_endpoint": self._settings.NOTIFICATIONS_GMAIL_API_URL}
        try:
            with build("gmail", "v1", http=authorised, client_options=options, cache_discovery=False) as api:
                api.users().messages().send(userId="me", body={"raw": raw}).execute(num_retries=0)
        except RefreshError as error:
            words = f"Google gives no access for {params.sender}: {error.args[0]}"
            raise DeliveryFailed(words, permanent=not error.retryable) from error
        except HttpError as error:
            raise _refused(error) from error
        except (GoogleAuthError, HttpLib2Error, OSError) as error:
            raise DeliveryFailed(f"Gmail cannot be reached: {error}", permanent=False) from error

    def _credentials(self, sender: str) -> Any:
        if self._secret["type"] == "service_account":
            return _SERVICE_ACCOUNT(self._secret, scopes=_SCOPES, subject=sender)
        return _AUTHORISED_USER(self._secret, scopes=_SCOPES)


def _refused(error: HttpError) -> DeliveryFailed:
    """403 stands for limits as well as for refusals: https://developers.google.com/gmail/api/guides/handle-errors"""
    status = int(error.resp.status)
    is_limit = status == 429 or (status == 403 and any(word in str(error.content) for word in _LIMITS))
    return DeliveryFailed(
        f"Gmail refuses the message: {status} {error.reason}",
        permanent=status < 500 and not is_limit,
        retry_after=seconds_of(error.resp.get("retry-after")),
    )
