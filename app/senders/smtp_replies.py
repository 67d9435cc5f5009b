"""Decide whether an SMTP refusal is final, by the enhanced status code, or else by command and basic code.

Enhanced status codes: RFC 3463, and the registry of RFC 5248. Only a refusal of this message or of its
addresses is final. After a refusal of the session (the client, its login, its rate) the message is retried,
because the operator can correct the cause.
"""

import re
from enum import Enum

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")


class Command(Enum):
    """The command that was refused."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"


# Final basic codes of replies without an enhanced status code (RFC 5321, 4.2.3 and 4.3.2).
_FINAL_CODES = {
    Command.MAIL: {501, 552, 553},
    Command.RCPT: {501, 550, 551, 552, 553, 556},
    Command.DATA: {550, 552, 554},
}
# Final details for each subject of the enhanced status code; None if all details are final.
_FINAL_DETAILS: dict[int, set[int] | None] = {
    1: None,  # a bad address, of the recipient or of the sender
    2: {1, 3, 4},  # the mailbox is disabled, the message is too long for it, a list that cannot be expanded
    3: {4},  # the message is too big for the system
    4: set(),  # network and routing
    5: set(),  # the protocol: wrong order, no login, a name in EHLO that is refused
    6: None,  # the contents, and addresses that need SMTPUTF8
    # Security and policy. 2: this sender must not write to that list; 17 and 18: mailbox or domain have
    # another owner; 27: the sender's domain takes no mail.
    7: {2, 17, 18, 27},
}
_SESSION_CODES = {421, 530}  # the server closes the connection; it requires TLS or a login first


def is_final(command: Command, code: int, text: str) -> bool:
    """Return whether the message itself is the cause, so that another attempt would be refused, too."""
    if not 500 <= code <= 599:
        return False
    subject, detail = _parse_enhanced_status(code, text)
    if subject not in _FINAL_DETAILS:
        return code in _FINAL_CODES[command]
    details = _FINAL_DETAILS[subject]
    return details is None or detail in details


def refuses_session(code: int, text: str) -> bool:
    """Return whether the server now refuses every message of the client."""
    return code in _SESSION_CODES or _parse_enhanced_status(code, text) in {(3, 2), (4, 5)}


def _parse_enhanced_status(code: int, text: str) -> tuple[int, int]:
    """Return subject and detail; (0, 0), which means undefined, unless the class fits the basic code."""
    found = _ENHANCED.match(text)
    if found is None or found[1] != str(code)[0]:
        return 0, 0
    return int(found[2]), int(found[3])
