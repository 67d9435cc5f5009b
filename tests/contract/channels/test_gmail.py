"""Gmail: authorization, and the answers of Google."""

from pathlib import Path

import pytest

from app.senders import Message, Sender
from tests.support.channels import (
    GmailChannel,
)
from tests.support.outbox import CONTENT, assert_readable, failure_of
from tests.support.real.http_services import Answer, google_error, json_answer

pytestmark = pytest.mark.timed


def test_a_service_account_asks_in_the_name_of_the_sender(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    sender.send(Message("key-1", "end", CONTENT), sender.Params.model_validate(gmail.params()))
    assert gmail.gmail.subjects == ["cluster@example.com"]
    assert gmail.received() == ["key-1"]


@pytest.fixture
def authorised_user(gmail: GmailChannel, tmp_path: Path) -> Sender:
    gmail.gmail.write_authorised_user(tmp_path / "user.json")
    return gmail.configured(NOTIFICATIONS_GMAIL_CREDENTIALS_PATH=tmp_path / "user.json")[1]


def test_an_authorised_user_sends_too(gmail: GmailChannel, authorised_user: Sender) -> None:
    params = authorised_user.Params.model_validate(gmail.params())
    authorised_user.send(Message("key-1", "end", CONTENT), params)
    assert gmail.gmail.subjects == []
    assert gmail.received() == ["key-1"]


@pytest.mark.parametrize("kind", ["service account", "authorised user"])
def test_revoked_access_is_retried_as_a_fault_of_the_channel(
    gmail: GmailChannel, authorised_user: Sender, kind: str
) -> None:
    sender = authorised_user if kind == "authorised user" else gmail.configured()[1]
    gmail.gmail.is_revoked = True
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)
    assert "Google grants no access for cluster@example.com: " in str(failure)
    assert "invalid_grant: Token has been expired or revoked." in str(failure)
    assert not any(secret in str(failure) for secret in gmail.secrets)


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [
        (google_error(403, "Rate Limit Exceeded", "rateLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "User Rate Limit Exceeded", "userRateLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "Daily Limit Exceeded", "dailyLimitExceeded", "", "usageLimits"), False),
        (google_error(403, "API not enabled", "accessNotConfigured", "", "usageLimits"), False),
        (google_error(403, "Insufficient Permission", "insufficientPermissions", ""), False),
        (google_error(403, "Delegation denied", "forbidden", "PERMISSION_DENIED"), True),
        (google_error(400, "Precondition check failed.", "failedPrecondition", "FAILED_PRECONDITION"), True),
        (google_error(500, "Backend Error", "backendError", "INTERNAL"), False),
        (Answer(503, b"<html>unavailable</html>", {"Content-Type": "text/html"}), False),
        (Answer(200, b"<html>a portal</html>", {"Content-Type": "text/html"}), False),
        (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), False),
    ],
)
def test_googles_refusals_are_final_or_retried(gmail: GmailChannel, answer: Answer, permanent: bool) -> None:
    _, sender = gmail.configured()
    gmail.gmail.answers += [gmail.token(), answer]
    failure = failure_of(sender, gmail.params())
    assert failure.permanent is permanent
    assert_readable(str(failure), gmail)
    assert gmail.received() == []


def test_a_sender_who_is_no_user_of_the_domain_is_final(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    words = {"error": "invalid_grant", "error_description": "Invalid email or User ID"}
    gmail.gmail.answers.append(json_answer(words, 400))
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (True, False)


def test_a_token_that_google_refuses_is_retried_as_a_fault_of_the_channel(gmail: GmailChannel) -> None:
    _, sender = gmail.configured()
    refused = google_error(401, "Invalid Credentials", "authError", "UNAUTHENTICATED")
    gmail.gmail.answers += [gmail.token(), refused] * 3
    failure = failure_of(sender, gmail.params())
    assert (failure.permanent, failure.is_of_channel) == (False, True)


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_token_endpoint_that_fails_is_tried_again(gmail: GmailChannel, status: int) -> None:
    _, sender = gmail.configured()
    gmail.gmail.answers += [Answer(status, b"<html>unwell</html>")] * 5
    failure = failure_of(sender, gmail.params())
    assert not failure.permanent
    assert_readable(str(failure), gmail)
