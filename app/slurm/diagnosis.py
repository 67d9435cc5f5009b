"""Check with a few quick requests whether Slurm can be used, and find the wrong setting if not.

A wrong setting is told from an outage by what was measured on Slurm 22.05.8, 24.11.5 and 26.05.5. While
slurmctld is down, `diag` answers after nine seconds. A token of the wrong key is answered at once: by 24.11
and 26.05 with error 1007, by 22.05 with -1. slurmdbd of 22.05 answers such a token with 1007.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from app.constants import Settings
from app.errors import (
    NoCommonVersion,
    SettingsError,
    SlurmProxyError,
    SlurmTokenRefused,
    SlurmUnavailable,
)
from app.models.record import utc_now
from app.setting_values import decode_key
from app.slurm.connection import Connection, strip_login
from app.slurm.connection_fault import diagnose_connection, require_plain_http
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.slurm.values import as_object

_CONNECT_SECONDS = 2.0
_READ_SECONDS = 3.0
_ANY_JOB = [("step", "1")]  # a query for slurmdbd whose answer is small
_TOKEN_LIFE = timedelta(days=1)  # so long that a clock that is behind does not look like a wrong key


@dataclass(frozen=True, slots=True)
class SlurmInfo:
    """Address and API version of the slurmrestd at SLURM_REST_HOST, and the release of Slurm."""

    address: str
    api: str
    release: str


def check_slurm(settings: Settings) -> SlurmInfo:
    """Return the slurmrestd at SLURM_REST_HOST, after slurmctld has accepted a token of this service.

    Raises:
        SettingsError: A setting is wrong for certain; the sentence names it and the remedy.
        SlurmUnavailable: Slurm cannot be used now; an outage may be the reason.
    """
    if settings.SLURM_REST_HOST is None:
        raise SettingsError(
            "SLURM_REST_HOST: set it to the address of slurmrestd, such as http://slurm.example.com:6820"
        )
    with _Diagnosis(settings) as diagnosis:
        return diagnosis.run(settings.slurm_key())


def check_accounting(settings: Settings, api: str) -> bool:
    """Return whether there is a slurmdbd that answers; False if the cluster has none.

    Raises:
        SlurmUnavailable: slurmdbd does not answer.
        SlurmMisbehaved: The answer of slurmdbd cannot be used.
    """
    with _Diagnosis(settings) as diagnosis:
        return diagnosis.has_accounting(settings.slurm_key(), api)


class _Diagnosis:
    """Requests of one check, with short time-outs and connections of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = settings.SLURM_REST_HOST or ""
        self._address = strip_login(self._host)
        self._open: list[Connection] = []

    def __enter__(self) -> "_Diagnosis":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()

    def run(self, key: bytes) -> SlurmInfo:
        """Run the check: see check_slurm."""
        try:
            session, reply = self._read_diagnostics(key)
            if reply.is_unspecified_error:  # 22.05: only slurmdbd reports the reason
                session.read_accounting(_ANY_JOB)
        except SlurmTokenRefused as error:
            raise self._key_fault(key) from error
        except NoCommonVersion as error:
            raise self._version_fault(error) from error
        except SlurmUnavailable as error:
            raise diagnose_connection(error, self._host) from error
        self._require_slurm(reply)
        if reply.status != 200:
            raise SlurmUnavailable(self._no_controller(reply))
        return SlurmInfo(self._address, session.dialect().api, _release(reply))

    def has_accounting(self, key: bytes, api: str) -> bool:
        """Check slurmdbd: see check_accounting."""
        user = self._settings.SLURM_REST_USERNAME
        request = SlurmRequest("GET", f"/slurmdb/{api}/jobs", user=user, query=_ANY_JOB)
        reply = self._connection(key).send(request)
        if reply.status == 404 and not reply.body:
            return False
        if reply.status != 200 or any(number != 9003 for number, _ in reply.errors()):
            raise SlurmUnavailable(f"slurmdbd does not answer ({reply.complaint()}): start it")
        return True

    def _connection(self, key: bytes, host: str | None = None) -> Connection:
        connection = Connection(
            host or self._host,
            TokenMint(key, self._settings.SLURM_REST_JWT_EXPIRATION_TIME),
            connect_timeout=min(_CONNECT_SECONDS, self._settings.SLURM_REST_CONNECT_TIMEOUT_SECONDS),
            read_timeout=min(_READ_SECONDS, self._settings.SLURM_REST_READ_TIMEOUT_SECONDS),
            ca_path=self._settings.SLURM_REST_CA_PATH,
        )
        self._open.append(connection)
        return connection

    def _read_diagnostics(self, key: bytes, host: str | None = None) -> tuple[Session, Reply]:
        """Return a session, and slurmctld's diagnostics."""
        session = Session(self._connection(key, host), self._settings.SLURM_REST_USERNAME)
        return session, session.read_diagnostics(_token_end())

    def _is_accepted(self, key: bytes, host: str | None = None) -> bool:
        try:
            return self._read_diagnostics(key, host)[1].status == 200
        except SlurmProxyError:
            return False

    def _key_fault(self, key: bytes) -> SettingsError:
        """Return why Slurm accepts no token of this key, after trying the usual mistakes in copying a key."""
        if self._host != self._address and self._is_accepted(key, self._address):
            words = "slurmrestd takes the user and the password in it for a token: remove them"
            return SettingsError(f"SLURM_REST_HOST: {words}")
        encoded = self._settings.SLURM_JWT_HS256_KEY_BASE64
        name = "SLURM_JWT_HS256_KEY_PATH" if encoded is None else "SLURM_JWT_HS256_KEY_BASE64"
        text = encoded.get_secret_value() if encoded else None
        for words, variant in _variants(key, text):
            if self._is_accepted(variant):
                return SettingsError(f"{name}: {words}")
        return SettingsError(
            f"{name}: Slurm accepts no token of this key: copy the file that jwt_key in slurm.conf names,"
            " byte by byte (if it is the same, this host's clock is more than a day behind)"
        )

    def _version_fault(self, error: NoCommonVersion) -> SettingsError:
        if error.offered:
            return SettingsError(f"SLURM_REST_HOST: {error}: use slurmrestd of Slurm 22.05 or newer")
        parts = urlsplit(self._address)
        remedy = f"remove {parts.path} from it" if parts.path and parts.scheme != "unix" else "correct it"
        return SettingsError(f"SLURM_REST_HOST: there is no slurmrestd at {self._address}: {remedy}")

    def _require_slurm(self, reply: Reply) -> None:
        """Check that slurmrestd has answered.

        Raises:
            SettingsError: Another server has answered, for certain.
        """
        if not reply.fault or reply.status >= 500 or reply.status in (408, 425, 429):
            return
        require_plain_http(self._host)
        raise SettingsError(
            f"SLURM_REST_HOST: the server at {self._address} is not slurmrestd ({reply.full_complaint()}):"
            " set it to the address and port of slurmrestd"
        )

    def _no_controller(self, reply: Reply) -> str:
        if reply.is_unspecified_error:
            return (
                f"slurmctld refuses the requests of {self._address} (no reason given): it is down, or"
                " SLURM_JWT_HS256_KEY_PATH or SLURM_JWT_HS256_KEY_BASE64 is not the cluster's key"
            )
        return f"slurmctld does not answer ({reply.complaint()}): start it"


def _token_end() -> datetime:
    return utc_now() + _TOKEN_LIFE


def _variants(key: bytes, text: str | None) -> Iterator[tuple[str, bytes]]:
    """Yield keys that may be right, each with the mistake; `text` is the setting if it holds the key."""
    if (stripped := key.rstrip(b"\r\n")) not in (key, b""):
        yield "it ends with a newline that the cluster's key does not have: remove the newline", stripped
    try:
        decoded = decode_key(key.decode("ascii"))
    except ValueError:
        pass
    else:
        if text is None:
            words = (
                "the file holds the key in base64: name the file by SLURM_JWT_HS256_KEY_BASE64_FILE instead"
            )
        else:
            words = "it is encoded twice: encode the key's file once, with base64 -w0"
        yield words, decoded
    yield "it lacks the newline that the cluster's key ends with: copy the file byte by byte", key + b"\n"
    if text is not None:
        yield (
            "it is the key itself and not its base64 form: encode the key's file with base64 -w0",
            text.encode(),
        )


def _release(reply: Reply) -> str:
    """Return Slurm's release as slurmrestd reports it; 22.05 spells the field in another way."""
    meta = as_object(reply.body.get("meta"))
    return str(as_object(meta.get("slurm") or meta.get("Slurm")).get("release") or "of an unknown release")
