"""Read the certificate authorities that a channel trusts."""

import ssl
from pathlib import Path

from app.errors import SettingsError


def read_authorities(setting: str, path: Path | None, *, beside_system: bool = False) -> ssl.SSLContext:
    """Return a context for TLS that checks certificates. Reading takes longer than sending a message.

    Args:
        setting: The name of the setting that has the path.
        path: A file of authorities in PEM; None for those of the system.
        beside_system: Trust the authorities of the system, too.

    Raises:
        SettingsError: The file cannot be used.
    """
    try:
        if not beside_system:
            return ssl.create_default_context(cafile=path)
        trust = ssl.create_default_context()
        if path is not None:
            trust.load_verify_locations(path)
    except OSError as error:
        raise SettingsError(
            f"{setting}: must name a file of certificate authorities in PEM: {error}"
        ) from error
    return trust
