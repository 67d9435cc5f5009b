"""Each sender with a real server that it sends to."""

from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import SMTP, default
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.environment import read_settings
from app.errors import DeliveryFailed
from app.models.content import Content
from app.models.job_facts import JobFacts
from app.senders import SENDERS, Message, Sender
from app.senders.email import EmailSender
from app.senders.mail import MailParams, build_mail
from app.senders.test import TestSender
from tests.support.real.smtp import SmtpServer
from tests.support.tasks import make_email

LOGIN = ("proxy", "secret words")
NewServer = Callable[..., SmtpServer]


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    started: list[SmtpServer] = []

    def start(security: str = "none", login: tuple[str, str] | None = None) -> SmtpServer:
        server = SmtpServer(tmp_path, security, login)
        server.__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__()


def sender_for(server: SmtpServer, security: str = "none", **settings: Any) -> EmailSender:
    sender = EmailSender.from_settings(
        read_settings(
            {
                "NOTIFICATIONS_SMTP_SERVER": server.host,
                "NOTIFICATIONS_SMTP_PORT": server.port,
                "NOTIFICATIONS_SMTP_SECURITY": security,
                "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS": 3,
                **settings,
            }
        )
    )
    assert sender is not None
    return sender


MESSAGE = Message(
    "key-1", "end", Content(subject="Größe: it has ended", words="hello\n.\nline two — done <b>&")
)


def params_of(**fields: Any) -> MailParams:
    return MailParams.model_validate(make_email(**fields)["params"]["email"])


def sent(sender: EmailSender, params: MailParams) -> None:
    sender.send(MESSAGE, params)
    sender.close_idle()


def refused(sender: EmailSender, **fields: Any) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as failure:
        sender.send(MESSAGE, params_of(**fields))
    return failure.value


def test_every_sender_answers_to_the_protocol() -> None:
    for sender in SENDERS.values():
        assert issubclass(sender, Sender)
        assert not sender.__abstractmethods__
        assert "subject" in sender.Params.model_fields or sender.Params.model_config["extra"] == "allow"


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize("login", [None, LOGIN])
def test_mail_arrives_whole(new_server: NewServer, security: str, login: tuple[str, str] | None) -> None:
    server = new_server(security, login)
    settings: dict[str, Any] = {"NOTIFICATIONS_SMTP_CA_PATH": server.ca_path}
    if login:
        settings |= {"NOTIFICATIONS_SMTP_USERNAME": login[0], "NOTIFICATIONS_SMTP_PASSWORD": login[1]}
    params = params_of(
        sender="The Cluster <cluster@example.com>",
        recipient=["Ann <ann@example.org>", "root@localhost"],
        reply_to="Help <help@example.net>",
    )
    sent(sender_for(server, security, **settings), params)
    (mail,) = server.mails
    assert (mail.sender, mail.recipients) == ("cluster@example.com", ["ann@example.org", "root@localhost"])
    headers = mail.message
    assert headers["From"] == "The Cluster <cluster@example.com>"
    assert headers["To"] == "Ann <ann@example.org>, root@localhost"
    assert headers["Reply-To"] == "Help <help@example.net>"
    assert headers["Subject"] == "Größe: it has ended"
    assert headers["Message-ID"] == "<key-1@example.com>"
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Date"].datetime is not None
    plain, html = mail.message.iter_parts()
    assert (plain.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert plain.get_content() == "hello\n.\nline two — done <b>&\n"
    assert "hello\n.\nline two — done &lt;b&gt;&amp;" in html.get_content()
    assert server.logins == ([login[0]] if login else [])


def test_the_same_message_has_the_same_id_at_every_attempt(new_server: NewServer) -> None:
    server = new_server()
    for _ in range(2):
        sent(sender_for(server), params_of())
    assert {mail.message["Message-ID"] for mail in server.mails} == {"<key-1@example.com>"}


@pytest.mark.parametrize(
    "address",
    ["=?utf-8?q?evil=40evil.example=2Ca?=@example.com", "=?utf-8?b?ZXZpbEBldmlsLmV4YW1wbGU=?=@example.com"],
)
def test_no_address_hides_in_an_encoded_word(address: str) -> None:
    with pytest.raises(ValidationError, match="must be an e-mail address"):
        params_of(recipient=address)


@pytest.mark.parametrize(
    "name",
    [
        "x" * 70 + ", evil@evil.example, b",
        "a, evil@evil.example",
        "a <evil@evil.example>",
        "ü, evil@evil.example; " * 9,
    ],
)
def test_no_address_hides_in_a_name(name: str) -> None:
    """The message itself decides who gets it, where it is handed to a service as a whole."""
    quoted = f'"{name}" <someone@example.com>'
    built = build_mail(MESSAGE, params_of(recipient=[quoted, "root@localhost"], sender=quoted))
    for policy in (default, SMTP):
        read = message_from_bytes(built.as_bytes(policy=policy), policy=default)
        assert [address.addr_spec for address in read["To"].addresses] == [
            "someone@example.com",
            "root@localhost",
        ]
        assert [address.addr_spec for address in read["From"].addresses] == ["someone@example.com"]
        assert "evil" not in str([address.addr_spec for address in read["To"].addresses])


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [("550 no such user here", True), ("451 try again later", False), ("452 mailbox is full", False)],
)
def test_the_servers_reply_about_an_address_decides_whether_to_retry(
    new_server: NewServer, answer: str, permanent: bool
) -> None:
    server = new_server()
    server.answers["gone@example.com"] = answer
    failure = refused(sender_for(server), recipient="gone@example.com")
    assert failure.permanent is permanent
    assert str(failure) == f"the mail server refuses the message: {answer}"
    assert server.mails == []


def test_a_wrong_password_is_retried(new_server: NewServer) -> None:
    server = new_server("starttls", LOGIN)
    sender = sender_for(
        server,
        "starttls",
        NOTIFICATIONS_SMTP_CA_PATH=server.ca_path,
        NOTIFICATIONS_SMTP_USERNAME=LOGIN[0],
        NOTIFICATIONS_SMTP_PASSWORD="not the secret",
    )
    failure = refused(sender)
    assert not failure.permanent
    assert "535" in str(failure)
    assert "not the secret" not in str(failure)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_an_unknown_authority_is_not_trusted(new_server: NewServer, security: str) -> None:
    server = new_server(security)
    failure = refused(sender_for(server, security))
    assert not failure.permanent
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure)
    assert server.mails == []


def test_starttls_never_falls_back_to_plain_text(new_server: NewServer) -> None:
    server = new_server("none")
    failure = refused(sender_for(server, "starttls"))
    assert "STARTTLS" in str(failure)
    assert server.mails == []


def test_a_server_that_is_away_is_tried_again(new_server: NewServer) -> None:
    server = new_server()
    sender = sender_for(server)
    server.__exit__()
    failure = refused(sender)
    server.__enter__()
    assert not failure.permanent
    assert f"{server.host}:{server.port}" in str(failure)
    sent(sender, params_of())
    assert len(server.mails) == 1


def test_without_a_server_there_is_no_sender() -> None:
    assert EmailSender.from_settings(read_settings({"NOTIFICATIONS_SMTP_SERVER": None})) is None


def test_the_test_method_logs_its_key_and_not_a_word_of_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    sender = TestSender.from_settings(read_settings({}))
    content = Content(subject="a private subject", words="private words", facts=JobFacts(name="private"))
    sender.send(Message("key-2", "end", content), TestSender.Params())
    assert "key-2" in caplog.text
    assert "private" not in caplog.text
