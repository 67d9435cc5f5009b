"""Webhooks: addresses, the answers of a receiver, and its requests to wait."""

import time
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path

import pytest

from app.environment import read_settings
from app.models.record import NotificationStatus
from app.senders import Message
from tests.support.channels import (
    WebhookChannel,
)
from tests.support.outbox import CONTENT, NOW, SECOND, Outbox, failure_of, is_accepted
from tests.support.real.http_services import Answer, HttpService

pytestmark = pytest.mark.timed


@pytest.mark.parametrize(
    "path",
    [
        "chem/../bio",
        "chem/%2E%2e/bio",
        "chem/.%2e/bio",
        "chem/..%2fbio",
        "chem/..%2Fbio",
        "chem%2f..%2fbio",
        "chem/%252e%252e/bio",
        "chem/%25252e%25252E/bio",
        "chem/..%252fbio",
        "chem/..;/bio",
        "chem/..;x=y/bio",
        "chem/%2e%2e%3b/bio",
        "chem/..%253b/bio",
        "chem/.;/bio",
        "chem/./bio",
        "chem\\bio",
        "chem\\..\\bio",
        "chem/..\\bio",
        "chem/..%5cbio",
        "chem/..%255cbio",
        "chem/..%00/bio",
        "chem/%20../bio",
        "chem/..%20/bio",
        "chem/..%09/bio",
        "chem/..%3f/bio",
        "chem/..%23/bio",
        "chem/%c0%ae%c0%ae/bio",
        "chem/%e0%80%ae%e0%80%ae/bio",
        "chem/%ef%bc%8e%ef%bc%8e/bio",
        "chem/%e2%80%a5/bio",
        "chem/%u002e%u002e/bio",
        "chem/%2",
        "chem/%zz",
        "..",
        "chem/..",
    ],
)
def test_webhook_path_that_a_server_may_read_as_another_is_refused(path: str) -> None:
    assert not is_accepted("webhook", {"url": f"https://h.example/{path}"}, None)


@pytest.mark.parametrize("host", ["[::1].h.example", "[::1]h.example:80", "[", "h.example]", "[h.example]"])
def test_a_host_that_is_not_wholly_an_address_is_refused(host: str) -> None:
    assert not is_accepted("webhook", {"url": f"https://{host}/jobs"}, None)
    assert is_accepted("webhook", {"url": "https://[::1]:8080/jobs"}, None)


@pytest.mark.parametrize(
    "path",
    [
        "chem/...",
        "chem/..a/b..",
        "chem/a..b",
        "chem/.well-known/x",
        "chem;v=1/x",
        "chem/%20x%2fy",
        "chem/%25",
        "chem/100%25",
        "chem/a%5cb",
        "chem/caf%C3%A9",
        "?up=../x",
    ],
)
def test_webhook_path_with_harmless_dots_or_escapes_is_accepted(path: str) -> None:
    assert is_accepted("webhook", {"url": f"https://h.example/{path}"}, None)


@pytest.mark.parametrize("url", ["https://h.example/a b", "https://h.example/?a b", "https://h.example/a "])
def test_a_url_that_could_never_be_called_is_refused_at_once(url: str) -> None:
    assert not is_accepted("webhook", {"url": url}, None)
    assert is_accepted("webhook", {"url": url.replace(" ", "%20")}, None)


@pytest.mark.parametrize("url", ["https://h.example/a\tb", "https://h.example/a\x7fb", "https://h.example\n"])
def test_a_url_with_control_characters_is_refused(url: str) -> None:
    assert not is_accepted("webhook", {"url": url}, None)


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (401, False),
        (403, False),
        (407, False),
        (404, True),
        (413, True),
        (410, True),
        (408, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_the_answer_of_a_receiver_decides_whether_to_retry(
    webhook: WebhookChannel, status: int, permanent: bool
) -> None:
    _, sender = webhook.configured()
    webhook.receiver.answers.append(Answer(status))
    failure = failure_of(sender, webhook.params())
    assert failure.permanent is permanent
    assert str(failure) == f"the receiver at 127.0.0.1:{webhook.port} answered {status}"


def test_a_wrong_signature_is_noticed(webhook: WebhookChannel) -> None:
    other = {f"127.0.0.1:{webhook.port}": WebhookChannel(Path()).receiver.secret}
    _, sender = webhook.configured(NOTIFICATIONS_WEBHOOK_RECEIVERS=other)
    assert str(failure_of(sender, webhook.params())).endswith("answered 401")
    assert webhook.received() == []


def test_retry_after_may_be_a_date(webhook: WebhookChannel, tmp_path: Path) -> None:
    webhook.busy(formatdate(time.time() + 60, usegmt=True))
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert first.status is NotificationStatus.RETRYING
    assert first.attempt_after is not None
    assert 50 * SECOND < first.attempt_after - NOW <= 60 * SECOND


@pytest.mark.parametrize(
    "nonsense", ["soon", "-7", "7.5", "", "²", "Mon, 99 Foo 2026", "Fri, 31 Dec 99999 23:59:59 GMT"]
)
def test_an_invalid_retry_after_is_ignored(webhook: WebhookChannel, tmp_path: Path, nonsense: str) -> None:
    webhook.busy(nonsense)
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert (first.status, first.attempt_after) == (NotificationStatus.RETRYING, NOW + 5 * SECOND)
    assert str(first.last_error).endswith("answered 429")


@pytest.mark.parametrize("much", ["99999999999999999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_very_long_requested_delay_is_limited_to_an_hour(
    webhook: WebhookChannel, tmp_path: Path, much: str
) -> None:
    webhook.busy(much)
    outbox = Outbox(tmp_path / "store.sqlite3", webhook)
    first = outbox.deliver()
    outbox.store.close()
    assert (first.status, first.attempt_after) == (NotificationStatus.RETRYING, NOW + timedelta(hours=1))
    assert str(first.last_error).endswith("answered 429")


def test_a_redirect_is_not_followed(webhook: WebhookChannel) -> None:
    with HttpService() as elsewhere:
        _, sender = webhook.configured()
        for status in (301, 302, 307, 308):
            webhook.receiver.answers.append(Answer(status, headers={"Location": f"{elsewhere.url}/"}))
            failure = failure_of(sender, webhook.params())
            assert str(failure).endswith(f"answered {status}")
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://hooks.example.com/x", True),
        ("HTTPS://HOOKS.Example.COM/x", True),
        ("http://hooks.example.com:8443/x?y=z", True),
        ("https://hooks.example.com:444/x", False),
        ("https://hooks.example.com.example.net/", False),
        ("https://example.com/", False),
        ("https://other.example.net/", False),
        ("https://hooks.example.com@example.net/", False),
        ("https://user:word@hooks.example.com/", False),
        ("https://example.net\\@hooks.example.com/", False),
        ("https://example.net/@hooks.example.com/", False),
        ("https://example.net#@hooks.example.com/", False),
        ("https://example.net?hooks.example.com", False),
        ("https://hooks.example.com\\.example.net/", False),
        ("https://hooks.example.com:99999/", False),
        ("ftp://hooks.example.com/", False),
        ("file:///etc/passwd", False),
        ("hooks.example.com", False),
        ("https://hooks.example.com\n.example.net/", False),
    ],
)
def test_webhooks_reach_only_receivers_that_the_operator_lists(url: str, is_allowed: bool) -> None:
    secret = WebhookChannel(Path()).receiver.secret
    receivers = {"Hooks.example.com": secret, "hooks.example.com:8443": secret}
    settings = read_settings({"NOTIFICATIONS_WEBHOOK_RECEIVERS": receivers})
    assert is_accepted("webhook", {"url": url}, settings) is is_allowed
    others = read_settings({"NOTIFICATIONS_WEBHOOK_RECEIVERS": {"another.example.com": secret}})
    assert not is_accepted("webhook", {"url": url}, others)


def test_a_host_in_capitals_is_the_same_host(webhook: WebhookChannel) -> None:
    receivers = {f"LocalHost:{webhook.port}": webhook.receiver.secret}
    _, sender = webhook.configured(NOTIFICATIONS_WEBHOOK_RECEIVERS=receivers)
    params = sender.Params.model_validate({"url": f"HTTP://LOCALHOST:{webhook.port}/"})
    sender.send(Message("key-1", "end", CONTENT), params)
    assert webhook.received() == ["key-1"]
