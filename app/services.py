"""The composition root: from settings to the parts, and from the parts to the use cases."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from app.access.failed_attempts import FailedAttempts
from app.access.keys import Keys
from app.access.oidc import Oidc
from app.access.request_guard import Gate, Proof
from app.constants import TASK_METADATA, Settings
from app.errors import SettingsError
from app.lifecycle.cancel import Cancellation
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.dead_letters import Outbox
from app.lifecycle.deliver import Delivery, Patience
from app.lifecycle.look_up import LookUp
from app.lifecycle.poll import Watcher
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.submit import Intake
from app.lifecycle.validation import Checker
from app.messages.plan import Catalogue, Planner
from app.models.caller import ClaimGrant
from app.models.refused_users import RefusedUsers
from app.models.task import CatalogueEntry
from app.models.username import CONTEXT_KEY
from app.monitor import Monitor
from app.outages import OutageLog
from app.senders import SENDERS, Sender
from app.slurm.client import SlurmClient
from app.slurm.connection import CONNECTIONS, Connection, without_login
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore

_CONNECTIONS_OF_MONITOR = 3  # its own, so that callers cannot keep it from polling
_MAX_CALLS_OF_A_CYCLE = 5  # a polling cycle that lasts longer than so many of the longest requests hangs

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Services:
    """All parts of one process. Nothing connects and no thread runs before `start`."""

    store: TaskStore
    slurm: SlurmClient
    monitors_slurm: SlurmClient
    checker: Checker
    intake: Intake
    look_up: LookUp
    cancellation: Cancellation
    outbox: Outbox
    gate: Gate
    keys: Keys
    delivery: Delivery
    monitor: Monitor
    outages: OutageLog

    def start(self) -> None:
        """Starts the monitor; after any fork. A store that is away by then is waited for."""
        self.monitor.start()

    def stop(self) -> None:
        self.monitor.stop()
        self.delivery.close()
        self.slurm.close()
        self.monitors_slurm.close()
        self.store.close()


def build_services(settings: Settings, slurm: SlurmClient | None = None) -> Services:
    """Build the parts that the settings describe, for another cluster if `slurm` is given.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    store = build_store(settings)
    outages = _outage_log(settings)
    monitors_slurm = slurm or _slurm(settings, outages, _CONNECTIONS_OF_MONITOR)
    slurm = slurm or _slurm(settings, outages)
    senders = build_senders(settings)
    methods_of_people = [method for method, sender in SENDERS.items() if sender.for_people]
    planner = Planner(build_catalogue(settings), senders, methods_of_people)
    refused_users = refused_users_of(settings)
    checker = Checker(planner.catalogue, refused_users, settings)
    unknown_after = timedelta(seconds=settings.MONITOR_UNKNOWN_AFTER_SECONDS)
    watcher = Watcher(store, monitors_slurm, planner, unknown_after=unknown_after)
    skew = timedelta(seconds=settings.SLURM_CLOCK_SKEW_SECONDS)
    submission_life = timedelta(seconds=slurm.longest_call) + skew
    clocks = ClockGuard(monitors_slurm, skew)
    delivery = _delivery(settings, store, senders, outages)
    intake = Intake(
        store,
        slurm,
        planner,
        checker,
        clocks=clocks,
        submission_life=submission_life,
        most_in_flight=settings.LIMIT_JOBS_IN_FLIGHT,
    )
    reconciler = Reconciler(
        store,
        monitors_slurm,
        planner,
        submission_life=submission_life,
        skew=skew,
        min_job_age=timedelta(seconds=settings.SLURM_MIN_JOB_AGE_SECONDS),
    )
    return Services(
        store=store,
        slurm=slurm,
        monitors_slurm=monitors_slurm,
        checker=checker,
        intake=intake,
        look_up=LookUp(store, slurm),
        cancellation=Cancellation(store, slurm, refused_users),
        outbox=Outbox(store, tuple(SENDERS)),
        gate=build_gate(settings, store),
        keys=Keys(store),
        delivery=delivery,
        monitor=Monitor(
            store,
            intake.reservations,
            watcher,
            reconciler,
            delivery,
            clocks=clocks,
            callers_slurm=slurm,
            outages=outages,
            interval=settings.MONITOR_POLLING_SECONDS,
            lease=settings.MONITOR_LEASE_SECONDS,
            cycle_limit=_MAX_CALLS_OF_A_CYCLE * slurm.longest_call,
        ),
        outages=outages,
    )


def refused_users_of(settings: Settings) -> RefusedUsers:
    """Return the users for which every task and action is refused."""
    names = {"root", "slurm", settings.SLURM_REST_USERNAME.lower()}
    return RefusedUsers(names - set(settings.TASK_ALLOWED_SERVICE_USERS))


def build_catalogue(settings: Settings) -> Catalogue:
    """Return the task names of this server.

    Raises:
        SettingsError: TASK_METADATA has an entry that cannot be used.
    """
    entries = {**TASK_METADATA, **settings.TASK_METADATA}
    return _validated("TASK_METADATA", dict[str, CatalogueEntry], entries)


def _validated(
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


def build_senders(settings: Settings) -> dict[str, Sender]:
    """Return the channels that are configured.

    Raises:
        SettingsError: A channel's settings cannot be used.
    """
    configured = {method: sender.configured(settings) for method, sender in SENDERS.items()}
    return {method: sender for method, sender in configured.items() if sender is not None}


def _outage_log(settings: Settings) -> OutageLog:
    host = settings.SLURM_REST_HOST
    return OutageLog({"Slurm": without_login(host)} if host else {})


def _delivery(
    settings: Settings, store: TaskStore, senders: Mapping[str, Sender], outages: OutageLog
) -> Delivery:
    patience = Patience(
        claim_for=timedelta(seconds=settings.NOTIFICATIONS_CLAIM_SECONDS),
        retry_for=timedelta(seconds=settings.NOTIFICATIONS_RETRY_SECONDS),
        ceiling=settings.NOTIFICATIONS_CEILING,
        window=timedelta(seconds=settings.NOTIFICATIONS_WINDOW_SECONDS),
    )
    context = {"settings": settings}
    return Delivery(store, senders, patience, methods=tuple(SENDERS), context=context, outages=outages)


def build_gate(settings: Settings, store: TaskStore) -> Gate:
    """Return the gate, which authenticates callers.

    Raises:
        SettingsError: OIDC_GRANTS or another setting of OpenID Connect cannot be used.
    """
    proofs: dict[str, Proof] = {}
    if "keys" in settings.ACCESS_METHODS:
        proofs["keys"] = Keys(store)
    if "oidc" in settings.ACCESS_METHODS:
        context = {CONTEXT_KEY: settings.TASK_USERNAME_PATTERN}
        grants = _validated("OIDC_GRANTS", tuple[ClaimGrant, ...], settings.OIDC_GRANTS, context)
        proofs["oidc"] = Oidc(settings, grants)
    return Gate(
        store,
        proofs,
        requests_a_minute=settings.LIMIT_REQUESTS_PER_MINUTE,
        is_private=not settings.ACCESS_WITHOUT_PROOF,
        failed_attempts=FailedAttempts(settings.LIMIT_FAILED_ATTEMPTS_PER_MINUTE),
    )


def build_store(settings: Settings) -> TaskStore:
    """Return the store, which connects when it is first used.

    Raises:
        SettingsError: MONGODB_URI cannot be read.
    """
    if settings.MONGODB_URI is None:
        return SqliteStore(settings.SQLITE_PATH, settings.SQLITE_TIMEOUT_SECONDS)
    client = connect(settings.MONGODB_URI.get_secret_value(), settings.MONGODB_TIMEOUT_SECONDS)
    return MongoStore(client, settings.MONGODB_MONITOR_DB, settings.MONGODB_MONITOR_JOBS_COLLECTION)


def _slurm(settings: Settings, outages: OutageLog, connections: int = CONNECTIONS) -> SlurmClient:
    if settings.SLURM_REST_HOST is None:
        raise SettingsError("SLURM_REST_HOST must be set to the address of slurmrestd (see .env.example)")
    connection = Connection(
        settings.SLURM_REST_HOST,
        TokenMint(settings.slurm_key(), settings.SLURM_REST_JWT_EXPIRATION_TIME),
        connect_timeout=settings.SLURM_REST_CONNECT_TIMEOUT_SECONDS,
        read_timeout=settings.SLURM_REST_READ_TIMEOUT_SECONDS,
        ca_path=settings.SLURM_REST_CA_PATH,
        connections=connections,
    )
    session = Session(connection, settings.SLURM_REST_USERNAME, refused_users_of(settings), outages)
    return SlurmClient(session, settings.TASK_TIME_UNIT, settings.SLURM_CLOCK_SKEW_SECONDS)
