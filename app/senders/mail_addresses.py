"""E-mail addresses: parsing, and the lists of the operator."""

import re
import unicodedata
from collections.abc import Collection
from email.headerregistry import Address
from typing import Annotated

from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email
from pydantic import AfterValidator

from app.messages.placeholders import to_one_line
from app.models.rules import CONTROL, Line, Rule

SPECIAL_USE_DOMAIN_NAMES.clear()  # the library's own switch: clusters do have mail domains such as .local

# Characters with a meaning of their own among addresses (RFC 5322).
_SPECIAL_CHARACTERS = re.compile(r'[,<>@:;"\\()\[\]]')
_MAX_NAME_LENGTH = 60  # characters; longer ones would be folded
# Local parts by which a server sends a mail on to another domain: x%example.net and example.net!x (Sendmail,
# Postfix), /C=us/… (X.400 gateways), IMCEASMTP-x+40example+2Enet (Exchange).
_ROUTE = re.compile(r'[%!@:"]|^/|^imcea', re.IGNORECASE)


def parse_address(value: str) -> Address:
    """Parse one address, with or without a display name, of any domain, even a local one.

    Raises:
        ValueError: `value` is no address, or has a route that can lead to another domain.
    """
    found = validate_email(
        value, check_deliverability=False, allow_display_name=True, globally_deliverable=False
    )
    if "=?" in found.local_part:  # an encoded word, in which other addresses could hide
        raise ValueError("an encoded word")
    if _ROUTE.search(unicodedata.normalize("NFKC", found.local_part)):
        raise ValueError("a route")
    name = _SPECIAL_CHARACTERS.sub(" ", to_header_text(found.display_name or ""))[:_MAX_NAME_LENGTH].strip()
    return Address(name, found.local_part, found.ascii_domain or found.domain)


def to_header_text(words: str) -> str:
    """Return the text as one line without encoded words (RFC 2047), which could hide further lines."""
    return to_one_line(words).replace("=?", "= ?")


def _require_address(value: str) -> str:
    parse_address(value)
    return value


def is_listed(address: Address, listed: Collection[str]) -> bool:
    """Return whether a list of the operator has the address or its domain; True for an empty list."""
    words = {word.lower() for word in listed}
    return not words or not words.isdisjoint({address.addr_spec.lower(), address.domain.lower()})


MailAddress = Annotated[
    Line,
    AfterValidator(_require_address),
    Rule(
        "be an e-mail address without a route to another one (such as x%example.net before the @)",
        pattern=f"^[^{CONTROL}]+@[^{CONTROL}]+$",
    ),
]
