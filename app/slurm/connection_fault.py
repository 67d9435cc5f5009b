"""Diagnose a request without an answer: an outage, or a wrong setting."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from app.errors import SettingsError, SlurmProxyError, SlurmUnavailable
from app.slurm.connection import strip_login

_PROBE_SECONDS = 2.0
_OUT_OF_DATE = (9, 10)  # OpenSSL's codes for a certificate that is not valid yet, or no longer


def diagnose_connection(error: SlurmUnavailable, host: str) -> SlurmProxyError:
    """Return the error with the reason for a request to SLURM_REST_HOST without an answer.

    The result is a SettingsError if no outage can be the reason, and otherwise a SlurmUnavailable.
    """
    address = strip_login(host)
    causes = list(_causes(error))
    for cause in causes:
        if (fault := _certain_fault(cause, address)) is not None:
            return fault
    if any(isinstance(cause, ConnectionRefusedError | FileNotFoundError) for cause in causes):
        words = "no server listens there: start slurmrestd, or correct the address"
    elif any(isinstance(cause, socket.gaierror) for cause in causes):
        words = "the host's name cannot be resolved: correct it, or the name service"
    elif any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        words = "its certificate is out of date: renew it, or correct this host's clock"
    elif any(isinstance(cause, TimeoutError) for cause in causes):
        words = "there is no answer in time: slurmctld or the network to slurmrestd may be down"
    else:
        try:
            require_plain_http(host)
        except SettingsError as fault:
            return fault
        words = "the server there closes the connection: set it to the port of slurmrestd, not of slurmctld"
    return SlurmUnavailable(f"SLURM_REST_HOST: {address}: {words}")


def require_plain_http(host: str) -> None:
    """Check that the server at an http:// address does not expect TLS.

    Raises:
        SettingsError: The server expects TLS.
    """
    parts, address = urlsplit(host), strip_login(host)
    if parts.scheme == "http" and _speaks_tls(parts.hostname or "", parts.port or 80):
        https = address.replace("http", "https", 1)
        raise SettingsError(f"SLURM_REST_HOST: {address} accepts only TLS: set it to {https}")


def _certain_fault(cause: BaseException, address: str) -> SettingsError | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OUT_OF_DATE:
            return None
        return SettingsError(
            f"SLURM_REST_CA_PATH: the certificate of {address} is not trusted"
            f" ({cause.verify_message}): name the authority that issued it"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        http = address.replace("https", "http", 1)
        return SettingsError(f"SLURM_REST_HOST: {address} does not use TLS: set it to {http}")
    if isinstance(cause, PermissionError) and address.startswith("unix://"):
        words = "grant this user write permission on the socket"
        return SettingsError(f"SLURM_REST_HOST: {address} cannot be opened: {words}")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all its causes; urllib3 keeps some causes as `reason` or as an argument."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
