"""Mail, by SMTP or by Gmail: headers, addresses and the operator's lists."""

from pathlib import Path

import pytest

from app.environment import read_settings
from app.models.record import NotificationStatus
from tests.support.channels import (
    Channel,
)
from tests.support.outbox import CONTENT, Outbox, is_accepted

pytestmark = pytest.mark.timed


@pytest.mark.parametrize("channel", ["email", "gmail"], indirect=True)
@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?done=0d=0aBcc:_evil@example.com?=",
        "done\nBcc: evil@example.com",
        "done\u2028Bcc: evil@example.com\x00\x0b",
        "x" * 900,
        "ü" * 900,
    ],
)
def test_a_subject_is_one_header(channel: Channel, tmp_path: Path, subject: str) -> None:
    outbox = Outbox(tmp_path / "store.sqlite3", channel, CONTENT.model_copy(update={"subject": subject}))
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    mail = arrival.raw
    assert mail["Bcc"] is None
    assert len(mail.get_all("Subject")) == 1
    assert [address.addr_spec for address in mail["To"].addresses] == ["someone@example.com"]
    assert CONTENT.words.splitlines()[0] in arrival.text


@pytest.mark.parametrize("channel", ["email", "gmail"], indirect=True)
@pytest.mark.parametrize("name", ["sender", "recipient", "reply_to"])
def test_a_name_beside_an_address_adds_no_header(channel: Channel, tmp_path: Path, name: str) -> None:
    hostile = '"=?utf-8?q?Ann=0d=0aBcc=3a_evil=40example.com?=" <someone@example.com>'
    outbox = Outbox(tmp_path / "store.sqlite3", channel, CONTENT, **{name: hostile})
    assert outbox.deliver().status is NotificationStatus.SENT
    outbox.store.close()
    (arrival,) = channel.arrivals()
    assert arrival.raw["Bcc"] is None
    header = {"sender": "From", "recipient": "To", "reply_to": "Reply-To"}[name]
    assert [address.addr_spec for address in arrival.raw[header].addresses] == ["someone@example.com"]
    assert CONTENT.words.splitlines()[0] in arrival.text


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("recipient", "is_allowed"),
    [
        ("ann@example.com", True),
        ("ANN@Example.COM", True),
        ("Ann <ann@example.com>", True),
        ("anybody@example.org", True),
        (["ann@example.com", "bob@EXAMPLE.org"], True),
        ("bob@example.com", False),
        ("bob@sub.example.org", False),
        ("bob@example.org.example.net", False),
        ("bob@notexample.org", False),
        ('"ann@example.com" <bob@example.net>', False),
        (["ann@example.com", "bob@example.net"], False),
    ],
)
def test_mail_goes_only_to_recipients_that_the_operator_allows(
    method: str, recipient: object, is_allowed: bool
) -> None:
    settings = read_settings({"NOTIFICATIONS_MAIL_ALLOWED": "ann@example.com,Example.org"})
    params = {"sender": "cluster@example.com", "recipient": recipient}
    assert is_accepted(method, params, settings) is is_allowed
    assert is_accepted(method, params, read_settings({}))


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("sender", "is_allowed"),
    [
        ("cluster@example.com", True),
        ("The Cluster <CLUSTER@Example.COM>", True),
        ("anybody@example.org", True),
        ("boss@example.com", False),
        ('"cluster@example.com" <boss@example.com>', False),
        ("anybody@sub.example.org", False),
    ],
)
def test_mail_comes_only_from_senders_that_the_operator_allows(
    method: str, sender: str, is_allowed: bool
) -> None:
    settings = read_settings({"NOTIFICATIONS_MAIL_SENDERS": "cluster@example.com,Example.org"})
    params = {"sender": sender, "recipient": "ann@example.net"}
    assert is_accepted(method, params, settings) is is_allowed
    assert is_accepted(method, params, read_settings({}))


ROUTES = [
    "x%example.net@example.com",
    "x%example.net%example.org@example.com",
    "example.net!x@example.com",
    "example.org!example.net!x@example.com",
    "@example.net:x@example.com",
    "<@example.net:x@example.com>",
    '"x@example.net"@example.com',
    "x@example.net@example.com",
    "x\uff20example.net@example.com",  # full-width forms of @, % and !
    "x\uff05example.net@example.com",
    "example.net\uff01x@example.com",
    "/C=us/A=x/P=y/S=z/@example.com",
    "IMCEASMTP-x+40example+2Enet@example.com",
    "imceaex-_o=z_cn=x@example.com",
    "Ann <x%example.net@example.com>",
]


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize("field", ["sender", "recipient", "reply_to"])
@pytest.mark.parametrize("address", ROUTES)
def test_mail_address_with_a_route_to_another_domain_is_refused(
    method: str, field: str, address: str
) -> None:
    params = {"sender": "a@example.com", "recipient": "b@example.com", field: address}
    assert not is_accepted(method, params, None)


@pytest.mark.parametrize("address", ["ann+jobs@example.com", "a/b@example.com", "d'a_b=c@example.com"])
def test_mail_address_with_special_characters_but_no_route_is_accepted(address: str) -> None:
    assert is_accepted("email", {"sender": address, "recipient": address, "reply_to": address}, None)


@pytest.mark.parametrize("method", ["email", "gmail"])
@pytest.mark.parametrize(
    ("reply_to", "is_allowed"),
    [
        ("ann@example.com", True),
        ("Help <DESK@cluster.example>", True),
        ("eve@example.net", False),
        ('"ann@example.com" <eve@example.net>', False),
    ],
)
def test_reply_to_is_accepted_only_if_the_operator_lists_it_as_recipient_or_sender(
    method: str, reply_to: str, is_allowed: bool
) -> None:
    mail = {"sender": "desk@cluster.example", "recipient": "ann@example.com", "reply_to": reply_to}
    lists = {
        "NOTIFICATIONS_MAIL_ALLOWED": "example.com",
        "NOTIFICATIONS_MAIL_SENDERS": "desk@cluster.example",
    }
    assert is_accepted(method, mail, read_settings(lists)) is is_allowed
    assert is_accepted(method, mail, read_settings({"NOTIFICATIONS_MAIL_SENDERS": "cluster.example"}))
    only_allowed = read_settings({"NOTIFICATIONS_MAIL_ALLOWED": "example.com"})
    assert is_accepted(method, mail, only_allowed) is (reply_to == "ann@example.com")
