"""Replies of real mail servers, and whether the message is retried."""

from typing import Any

import pytest

from app.environment import read_settings
from app.errors import DeliveryFailed
from app.models.content import Content
from app.senders import Message
from app.senders.email import EmailSender
from tests.support.real.scripted import ScriptedSmtp

# The command that was refused ("greeting": the connection, ".": the end of the data), the reply, whether
# it is final for the message, and whether every other message would be refused, too.
REPLIES = [
    # Postfix
    ("RCPT", "550 5.1.1 <gone@example.com>: Recipient address rejected: User unknown", True, False),
    ("RCPT", "450 4.1.1 <gone@example.com>: Recipient address rejected: unverified address", False, False),
    ("RCPT", "554 5.7.1 <node1[10.0.0.7]>: Client host rejected: Access denied", False, False),
    ("RCPT", "554 5.7.1 <ann@example.org>: Relay access denied", False, False),
    ("RCPT", "553 5.7.1 <c@example.com>: Sender address rejected: not owned by user proxy", False, False),
    ("RCPT", "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", False, False),
    ("RCPT", "550 5.1.8 <c@nowhere.example>: Sender address rejected: Domain not found", True, False),
    ("RCPT", "556 5.1.10 <ann@example.org>: Recipient address rejected: Domain takes no mail", True, False),
    ("MAIL", "530 5.7.0 Must issue a STARTTLS command first", False, True),
    ("MAIL", "552 5.3.4 Message size exceeds fixed limit", True, False),
    (".", "552 5.3.4 Error: message file too big", True, False),
    (".", "451 4.3.0 Error: queue file write error", False, False),
    ("greeting", "554 5.7.1 Service unavailable; Client host [10.0.0.7] blocked", False, True),
    ("greeting", "421 4.7.0 node1 Error: too many connections from 10.0.0.7", False, True),
    ("EHLO", "501 5.5.4 Syntax: EHLO hostname", False, True),
    ("AUTH", "535 5.7.8 Error: authentication failed", False, True),
    ("AUTH", "534 5.7.9 Application-specific password required", False, True),
    # Gmail and Google Workspace
    ("MAIL", "530 5.7.0 Authentication Required. For more information, go to the help page", False, True),
    ("MAIL", "530-5.5.1 Authentication Required.\r\n530 5.5.1 Learn more", False, True),
    (".", "550 5.4.5 Daily user sending quota exceeded", False, True),
    (".", "550-5.4.5 Daily SMTP relay sending quota exceeded.\r\n550 5.4.5 Learn more", False, True),
    (
        "RCPT",
        "550-5.1.1 The email account that you tried to reach does not exist.\r\n550 5.1.1 -",
        True,
        False,
    ),
    ("RCPT", "550 5.2.1 The email account that you tried to reach is disabled", True, False),
    ("RCPT", "552 5.2.2 The recipient's inbox is out of storage space", False, False),
    (".", "552 5.2.3 Your message exceeded Google's message size limits", True, False),
    ("RCPT", "550 5.7.1 This user does not have permission to use the relay", False, False),
    ("MAIL", "421 4.7.0 Try again later, closing connection", False, True),
    # Exchange and Exchange Online
    ("MAIL", "530 5.7.57 Client not authenticated to send mail", False, True),
    ("RCPT", "550 5.4.1 Recipient address rejected: Access denied", False, False),
    ("RCPT", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", False, False),
    (".", "554 5.2.0 STOREDRV.Deliver.Exception:QuotaExceededException", False, False),
    ("MAIL", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", False, False),
    ("RCPT", "550 5.7.17 Mailbox owner has changed", True, False),
    # Others
    ("MAIL", "554 5.7.0 Your message could not be sent. The outgoing limit was exceeded", False, False),
    (".", "554 5.7.0 The limit on the number of allowed outgoing messages was exceeded", False, False),
    ("MAIL", "452 4.3.1 Insufficient system storage", False, False),
    ("MAIL", "550 5.3.2 System not accepting network messages", False, True),
    (".", "554 5.6.0 Message content rejected", True, False),
    ("RCPT", "553 5.6.7 Address requires SMTPUTF8", True, False),
    # Without an enhanced status code, or with one that cannot be meant
    ("RCPT", "550 no such user here", True, False),
    ("RCPT", "551 User not local", True, False),
    ("RCPT", "553 mailbox name not allowed", True, False),
    ("RCPT", "554 Client host rejected: Access denied", False, False),
    ("RCPT", "503 valid login required", False, False),
    ("RCPT", "550 4.1.1 this class does not fit the code", True, False),
    ("RCPT", "550 5.0.0 User unknown", True, False),
    ("RCPT", "550 host 5.7.1 is only words here", True, False),
    ("RCPT", "550 5.7.1.9 is only words here", True, False),
    ("MAIL", "550 you are blocked", False, False),
    ("MAIL", "553 this is no address", True, False),
    ("MAIL", "552 too big", True, False),
    ("MAIL", "530 log in first", False, True),
    ("DATA", "503 no recipients", False, False),
    (".", "554 spam", True, False),
    (".", "452 disk full", False, False),
]


def failure_of(recipient: str = "ann@example.com", **script: str) -> DeliveryFailed:
    """Return the error of the sender after this reply of the server."""
    with ScriptedSmtp({command: f"{reply}\r\n".encode() for command, reply in script.items()}) as server:
        settings: dict[str, Any] = {
            "NOTIFICATIONS_SMTP_SERVER": server.host,
            "NOTIFICATIONS_SMTP_PORT": server.port,
            "NOTIFICATIONS_SMTP_SECURITY": "none",
            "NOTIFICATIONS_SMTP_USERNAME": "proxy",
            "NOTIFICATIONS_SMTP_PASSWORD": "secret words",
            "NOTIFICATIONS_SMTP_TIMEOUT_SECONDS": 3,
        }
        sender = EmailSender.from_settings(read_settings(settings))
        assert sender is not None
        params = sender.Params.model_validate({"sender": "c@example.com", "recipient": recipient})
        with pytest.raises(DeliveryFailed) as failure:
            sender.send(Message("key-1", "end", Content(subject="it has ended")), params)
        assert server.mails == []
        return failure.value


@pytest.mark.parametrize(("command", "reply", "is_final", "is_of_channel"), REPLIES)
def test_a_refusal_is_final_only_where_the_message_is_at_fault(
    command: str, reply: str, is_final: bool, is_of_channel: bool
) -> None:
    # A server that dislikes EHLO is greeted by HELO.
    failure = failure_of(**{command: reply, **({"HELO": reply} if command == "EHLO" else {})})
    assert (failure.permanent, failure.is_of_channel) == (is_final, is_of_channel)
    assert reply[:3] in str(failure)
    assert "\n" not in str(failure)


def test_an_address_that_needs_smtputf8_is_final_where_the_server_has_none() -> None:
    failure = failure_of("jürgen@example.com")
    assert failure.permanent
    assert str(failure) == "the mail server does not support addresses outside ASCII (SMTPUTF8)"


def test_a_server_without_login_is_tried_again() -> None:
    failure = failure_of(EHLO="250 scripted")
    assert not failure.permanent
    assert failure.is_of_channel
    assert "AUTH" in str(failure)
