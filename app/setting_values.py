"""Check and convert the values of settings: a type for each form that a value may have.

`app/constants.py` uses these types. A check raises ValueError with the rule that the value breaks, such as
`must be host:port or unix:/path`. The reader sees it after the name of the setting.
"""

import base64
import binascii
import ipaddress
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from app.slow_patterns import is_slow_pattern

UNIX_SOCKET = "unix"  # in ACCESS_TRUSTED_PROXIES
LOOPBACK_NAMES = ("localhost", "ip6-localhost")

_PROJECT = Path(__file__).parent.parent
# gunicorn also accepts other forms: without a port, for example, it would listen on port 8000.
_BIND_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]*):(?P<port>\d+)|unix:.+|fd://\d+")
_MAX_PORT = 65535
_MIN_SIGNING_KEY_BYTES = 24  # as the Standard Webhooks specification has it


@lru_cache(32)  # each request asks twice; clients choose their Host, so the cache stays small
def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host, which is a name or an IP address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in LOOPBACK_NAMES
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def decode_key(text: str) -> bytes:
    """Return the bytes of a text in base64 or base64url, padded or not.

    Raises:
        ValueError: The text is empty, or in neither form.
    """
    plain = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None
    if not key:
        raise ValueError("must not be empty")
    return key


def decode_signing_key(secret: SecretStr) -> bytes:
    """Return the key of a secret as Standard Webhooks writes it, with or without the prefix `whsec_`.

    Raises:
        ValueError: The secret is not base64.
    """
    return decode_key(secret.get_secret_value().removeprefix("whsec_"))


def split_addresses(text: str) -> list[str]:
    """Return the addresses of a text with commas between them."""
    return [address.strip() for address in text.split(",")]


def _check_slurm_user(name: str) -> str:
    """Return the name, which becomes the value of a header.

    Raises:
        ValueError: A header cannot have this value.
    """
    if not name.isascii() or not name.isprintable() or not name or name != name.strip():
        raise ValueError("must be a user name in ASCII, without blanks around it")
    return name


def _split_words(value: object) -> object:
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _parse_json_object(value: object) -> object:
    return _parse_json(value, dict, "must be a JSON object")


def _parse_json_list(value: object) -> object:
    return _parse_json(value, list, "must be a JSON list")


def _parse_json(value: object, kind: type, rule: str) -> object:
    """Return the value of a JSON text, and any other value unchanged.

    Raises:
        ValueError: The text is not JSON, or its value is not a `kind`; the message begins with `rule`.
    """
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError as error:
        raise ValueError(f"{rule}, and cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise ValueError(rule)
    return found


def _resolve_path(path: Path) -> Path:
    return _PROJECT / path


def _check_slurmrestd_address(value: str) -> str:
    if value.startswith("unix:///") or _is_web_address(value):
        return value.rstrip("/")
    raise ValueError("must be http://host:port, https://host:port or unix:///path")


def _check_bind_addresses(value: str) -> str:
    for address in split_addresses(value):
        found = _BIND_ADDRESS.fullmatch(address)
        if found is None or int(found["port"] or 0) > _MAX_PORT:
            raise ValueError(f'must be host:port or unix:/path, not "{address}"')
    return value


def _check_proxies(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        try:
            if word != UNIX_SOCKET:
                ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(f'must be addresses, networks or the word unix, not "{word}"') from None
    return words


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    if is_slow_pattern(value):
        raise ValueError("must not repeat a repetition, as in (a+)+: matching could take hours")
    return value


def _check_web_address(value: str) -> str:
    if not _is_web_address(value):
        raise ValueError("must be an address that begins with https:// or http://")
    return value


def _is_web_address(value: str) -> bool:
    """Return whether a text is an http or https URL with a host and a possible port."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith(("/", "./", "../", "~/")) and (_is_file(text) or not _is_base64(text)):
        raise ValueError("looks like a path: set SLURM_JWT_HS256_KEY_PATH to it instead")
    decode_key(text)
    return value


def _is_file(text: str) -> bool:
    return os.path.isfile(text)  # noqa: PTH113 - pathlib raises for a text that is too long


def _is_base64(text: str) -> bool:
    try:
        return bool(decode_key(text))
    except ValueError:
        return False


def _check_webhook_receivers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for host, secret in value.items():
        if "/" in host:
            raise ValueError(f'must name hosts, each as host or host:port, not "{host}"')
        if len(decode_signing_key(secret)) < _MIN_SIGNING_KEY_BYTES:
            raise ValueError(f"the secret of {host} must have at least {_MIN_SIGNING_KEY_BYTES} bytes")
    return value


CommaSeparated = BeforeValidator(_split_words)
JsonObject = BeforeValidator(_parse_json_object)
JsonList = Annotated[list[Any], BeforeValidator(_parse_json_list)]
Words = Annotated[tuple[str, ...], CommaSeparated]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
PerSecond = Annotated[float, Field(gt=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
ProjectPath = Annotated[Path, AfterValidator(_resolve_path)]  # relative to the folder that holds app/
SlurmrestdAddress = Annotated[str, AfterValidator(_check_slurmrestd_address)]
BindAddresses = Annotated[str, AfterValidator(_check_bind_addresses)]
TrustedProxies = Annotated[Words, AfterValidator(_check_proxies)]
WebAddress = Annotated[str, AfterValidator(_check_web_address)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
SlurmUser = Annotated[str, AfterValidator(_check_slurm_user)]
Base64Key = Annotated[SecretStr, AfterValidator(_check_key)]
WebhookReceivers = Annotated[dict[str, SecretStr], JsonObject, AfterValidator(_check_webhook_receivers)]
AppriseTargets = Annotated[dict[str, SecretStr], JsonObject]
