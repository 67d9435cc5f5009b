"""The way to services on the web: the operator's proxy, and the authorities that vouch for receivers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.environment import read_settings
from app.errors import DeliveryFailed
from app.models.content import Content
from app.senders import Message
from app.senders.webhook import WebhookSender
from tests.support.channels import CHANNELS_IN_A_FOLDER, started
from tests.support.real.certificates import server_context
from tests.support.real.http_services import WebhookReceiver
from tests.support.real.scripted import Drip, ForwardProxy

MESSAGE = Message("key-1", "end", Content(subject="it has ended"))
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[WebhookReceiver]:
    """One that speaks HTTPS, by an authority of its own."""
    tls = server_context(tmp_path / "ca.pem", tmp_path / "key.pem")
    with WebhookReceiver(tls) as service:
        yield service


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as server:
        yield server


def send(receiver: WebhookReceiver, ca_path: Path | None = None, **settings: Any) -> DeliveryFailed | None:
    """Return why it did not arrive."""
    sender = WebhookSender.from_settings(
        read_settings(
            {
                "NOTIFICATIONS_WEBHOOK_RECEIVERS": {f"127.0.0.1:{receiver.port}": receiver.secret},
                "NOTIFICATIONS_WEBHOOK_CA_PATH": ca_path,
                "NOTIFICATIONS_HTTP_TIMEOUT_SECONDS": 1,
                **settings,
            }
        )
    )
    assert sender is not None
    try:
        sender.send(MESSAGE, sender.Params.model_validate({"url": f"{receiver.url}/hooks?x=1"}))
    except DeliveryFailed as failure:
        return failure
    return None


def test_an_https_webhook_goes_through_the_proxy_by_connect(
    receiver: WebhookReceiver, proxy: ForwardProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret%20word@127.0.0.1:{proxy.port}")
    assert send(receiver, tmp_path / "ca.pem") is None
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT 127.0.0.1:{receiver.port} ")
    assert "Proxy-Authorization: Basic YW5uOnNlY3JldCB3b3Jk\r\n" in head
    ((request, _),) = receiver.events
    assert request.path == "/hooks?x=1"
    assert "proxy-authorization" not in request.headers


def test_an_http_webhook_goes_through_the_proxy_with_its_whole_url(
    proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
    with WebhookReceiver() as receiver:
        assert send(receiver) is None
        (head,) = proxy.heads
        assert head.startswith(
            f"POST {receiver.url}/hooks?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{receiver.port}\r\n"
        )


@pytest.mark.parametrize("excepted", ["127.0.0.1", "example.com, 127.0.0.1", "*"])
def test_the_variable_no_proxy_is_respected(
    receiver: WebhookReceiver,
    proxy: ForwardProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    excepted: str,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert send(receiver, tmp_path / "ca.pem") is None
    assert proxy.heads == []


def test_the_proxy_of_one_scheme_is_not_used_for_the_other(
    receiver: WebhookReceiver, proxy: ForwardProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert send(receiver, tmp_path / "ca.pem") is None
    assert proxy.heads == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.0 403 Forbidden\r\n\r\n",
        b"nonsense\r\n\r\n",
        Drip(b"HTTP/1.0 200 OK\r\n", b"X: 1\r\n"),
        Drip(b"", b"x"),
    ],
)
def test_a_proxy_that_does_not_connect_is_retried(
    receiver: WebhookReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | Drip
) -> None:
    with ForwardProxy(answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret@127.0.0.1:{proxy.port}")
        failure = send(receiver, tmp_path / "ca.pem")
    assert failure is not None
    assert not failure.permanent
    assert "secret" not in str(failure)
    assert receiver.requests == []


@pytest.mark.parametrize("address", ["socks5://ann:secret@127.0.0.1:1", "http://", "http://127.0.0.1:x"])
def test_a_proxy_of_another_kind_is_not_passed_by(
    receiver: WebhookReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    failure = send(receiver, tmp_path / "ca.pem")
    assert failure is not None
    assert not failure.permanent
    assert "secret" not in str(failure)
    assert receiver.requests == []


@pytest.mark.parametrize("method", ["slack", "gmail", "webhook"])
def test_every_channel_on_the_web_goes_through_the_proxy(
    proxy: ForwardProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    for channel in started(CHANNELS_IN_A_FOLDER[method](tmp_path)):
        _, sender = channel.configured()
        sender.send(MESSAGE, sender.Params.model_validate(channel.params()))
        assert channel.received() == ["key-1"]
        assert proxy.heads


def test_a_receiver_with_an_unknown_certificate_authority_is_not_trusted(receiver: WebhookReceiver) -> None:
    failure = send(receiver)
    assert failure is not None
    assert not failure.permanent
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert receiver.requests == []


def test_a_receiver_of_the_operators_own_authority_is_trusted(
    receiver: WebhookReceiver, tmp_path: Path
) -> None:
    assert send(receiver, tmp_path / "ca.pem") is None
    assert len(receiver.events) == 1
