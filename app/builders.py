"""Build single parts from the settings: the store, the client of Slurm, the channels, authentication."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from app.access.failed_attempts import FailedAttempts
from app.access.keys import ApiKeys
from app.access.oidc import OidcAuthenticator
from app.access.request_guard import Authenticator, RequestGuard
from app.constants import TASK_METADATA, Settings
from app.errors import SettingsError
from app.messages.plan import Catalogue
from app.metrics import Metrics
from app.models.caller import ClaimGrant
from app.models.catalogue_entry import CatalogueEntry
from app.models.refused_users import RefusedUsers
from app.models.username import CONTEXT_KEY
from app.outages import OutageLog
from app.senders import SENDERS, Sender
from app.slurm.client import SlurmClient
from app.slurm.connection import CONNECTIONS, Connection, strip_login
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore

_Value = TypeVar("_Value")

# Of the poller alone, so that callers cannot delay it: three read jobs, one checks, and one pings or probes.
_POLLER_CONNECTIONS = 5


def build_store(settings: Settings, metrics: Metrics | None = None) -> TaskStore:
    """Return the store, which connects when it is first used, and counts durations in `metrics`.

    Raises:
        SettingsError: MONGODB_URI cannot be read.
    """
    if settings.MONGODB_URI is None:
        return SqliteStore(settings.SQLITE_PATH, settings.SQLITE_TIMEOUT_SECONDS, metrics=metrics)
    client = connect(settings.MONGODB_URI.get_secret_value(), settings.MONGODB_TIMEOUT_SECONDS, metrics)
    return MongoStore(client, settings.MONGODB_MONITOR_DB, settings.MONGODB_MONITOR_JOBS_COLLECTION)


def build_outage_log(settings: Settings) -> OutageLog:
    """Return the log of outages, which names the address of slurmrestd."""
    host = settings.SLURM_REST_HOST
    return OutageLog({"Slurm": strip_login(host)} if host else {})


def build_slurm_clients(
    settings: Settings, outages: OutageLog, metrics: Metrics | None = None
) -> tuple[SlurmClient, SlurmClient]:
    """Return the clients of slurmrestd for the poller and for callers, which share what they know of it.

    They connect when they are first used, and count in `metrics`.

    Raises:
        SettingsError: SLURM_REST_HOST is not set, or the cluster's key cannot be read.
    """
    refused = find_refused_users(settings)
    user = settings.SLURM_REST_USERNAME
    poller = Session(_connect_to_slurm(settings, _POLLER_CONNECTIONS, metrics), user, refused, outages)
    connection = _connect_to_slurm(settings, CONNECTIONS, metrics)
    callers = Session(connection, user, refused, outages, poller.breaker, poller.discovery)
    unit, skew = settings.TASK_TIME_UNIT, settings.SLURM_CLOCK_SKEW_SECONDS
    return SlurmClient(poller, unit, skew), SlurmClient(callers, unit, skew)


def _connect_to_slurm(settings: Settings, connections: int, metrics: Metrics | None) -> Connection:
    if settings.SLURM_REST_HOST is None:
        raise SettingsError("SLURM_REST_HOST must be set to the address of slurmrestd (see .env.example)")
    return Connection(
        settings.SLURM_REST_HOST,
        TokenMint(settings.slurm_key(), settings.SLURM_REST_JWT_EXPIRATION_TIME),
        connect_timeout=settings.SLURM_REST_CONNECT_TIMEOUT_SECONDS,
        read_timeout=settings.SLURM_REST_READ_TIMEOUT_SECONDS,
        ca_path=settings.SLURM_REST_CA_PATH,
        connections=connections,
        metrics=metrics,
    )


def build_senders(settings: Settings) -> dict[str, Sender]:
    """Return the channels that are configured, by method.

    Raises:
        SettingsError: A channel's settings cannot be used.
    """
    configured = {method: sender.from_settings(settings) for method, sender in SENDERS.items()}
    return {method: sender for method, sender in configured.items() if sender is not None}


def build_catalogue(settings: Settings) -> Catalogue:
    """Return the task names of this server.

    Raises:
        SettingsError: TASK_METADATA has an entry that cannot be used.
    """
    entries = {**TASK_METADATA, **settings.TASK_METADATA}
    return _validate_setting("TASK_METADATA", dict[str, CatalogueEntry], entries)


def build_request_guard(settings: Settings, store: TaskStore, keys: ApiKeys) -> RequestGuard:
    """Return the guard, which authenticates callers.

    Raises:
        SettingsError: OIDC_GRANTS or another setting of OpenID Connect cannot be used.
    """
    authenticators: dict[str, Authenticator] = {}
    if "keys" in settings.ACCESS_METHODS:
        authenticators["keys"] = keys
    if "oidc" in settings.ACCESS_METHODS:
        context = {CONTEXT_KEY: settings.TASK_USERNAME_PATTERN}
        grants = _validate_setting("OIDC_GRANTS", tuple[ClaimGrant, ...], settings.OIDC_GRANTS, context)
        authenticators["oidc"] = OidcAuthenticator(settings, grants)
    return RequestGuard(
        store,
        authenticators,
        requests_per_minute=settings.LIMIT_REQUESTS_PER_MINUTE,
        loopback_only=not settings.ACCESS_WITHOUT_PROOF,
        failed_attempts=FailedAttempts(settings.LIMIT_FAILED_ATTEMPTS_PER_MINUTE),
    )


def find_refused_users(settings: Settings) -> RefusedUsers:
    """Return the users for which every task and action is refused."""
    names = {"root", "slurm", settings.SLURM_REST_USERNAME.lower()}
    return RefusedUsers(names - set(settings.TASK_ALLOWED_SERVICE_USERS))


def _validate_setting(
    name: str, kind: type[_Value], value: object, context: Mapping[str, object] | None = None
) -> _Value:
    """Return the value of the setting `name` as a `kind`.

    Raises:
        SettingsError: The value cannot be used.
    """
    try:
        return TypeAdapter(kind).validate_python(value, context={"methods": SENDERS, **(context or {})})
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        path = ".".join(map(str, fault["loc"]))
        raise SettingsError(f"{name}: {path}: {fault['msg']}") from None
