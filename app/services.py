"""Build the services of one process: the parts from the settings, and the use cases from the parts."""

from dataclasses import dataclass
from datetime import timedelta

from app.access.keys import ApiKeys
from app.access.request_guard import RequestGuard
from app.builders import (
    build_catalogue,
    build_outage_log,
    build_request_guard,
    build_senders,
    build_slurm_clients,
    build_store,
    find_refused_users,
)
from app.constants import Settings
from app.lifecycle.cancel_many import BulkCancellation
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.control import TaskControl
from app.lifecycle.dead_letters import DeadLetters
from app.lifecycle.deliver import Delivery
from app.lifecycle.describe_caller import CallerDescription
from app.lifecycle.list_catalogue import CatalogueListing
from app.lifecycle.list_tasks import TaskListing
from app.lifecycle.look_up import TaskLookup
from app.lifecycle.poll import Poller
from app.lifecycle.present_facts import PresentFacts
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.register_job import JobRegistration
from app.lifecycle.report_health import HealthReporter, make_process_name
from app.lifecycle.reservations import Reservations
from app.lifecycle.resubmit import Resubmission
from app.lifecycle.retry_policy import DeliveryPolicy
from app.lifecycle.shared_status import StatusReader
from app.lifecycle.state_subscriptions import StateSubscriptions
from app.lifecycle.submit import TaskSubmitter
from app.lifecycle.validation import RequestValidator
from app.lifecycle.wait import TaskWaiting
from app.lifecycle.watch_outages import OutageWatch
from app.messages.plan import Planner
from app.metrics import Metrics
from app.monitor import Monitor, MonitorTiming
from app.operator_view import OperatorView, build_operator_view
from app.outages import OutageLog
from app.senders import SENDERS, Sender, find_channel
from app.slurm.client import SlurmClient
from app.slurm.request_budget import RequestBudget
from app.store import TaskStore

_MAX_CYCLE_CALLS = 5  # a cycle that takes longer than so many of the longest calls counts as hung


@dataclass(frozen=True, slots=True)
class Services:
    """All parts of one process. Nothing connects and no thread runs before `start`."""

    store: TaskStore
    slurm: SlurmClient
    poller_slurm: SlurmClient
    validator: RequestValidator
    submitter: TaskSubmitter
    resubmission: Resubmission
    registration: JobRegistration
    lookup: TaskLookup
    waiting: TaskWaiting
    control: TaskControl
    listing: TaskListing
    bulk_cancellation: BulkCancellation
    dead_letters: DeadLetters
    caller_description: CallerDescription
    catalogue_listing: CatalogueListing
    operator_view: OperatorView
    request_guard: RequestGuard
    keys: ApiKeys
    delivery: Delivery
    monitor: Monitor
    outages: OutageLog

    def start(self) -> None:
        """Start the monitor, after any fork. The monitor waits for a store that is unavailable."""
        self.monitor.start()

    def stop(self) -> None:
        """Have waiting requests answered, stop the monitor, and close all connections."""
        self.waiting.stop()
        self.monitor.stop()
        self.delivery.close()
        self.slurm.close()
        self.poller_slurm.close()
        self.store.close()


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts that several use cases share."""

    settings: Settings
    outages: OutageLog
    store: TaskStore
    slurm: SlurmClient
    poller_slurm: SlurmClient
    senders: dict[str, Sender]
    planner: Planner
    validator: RequestValidator
    clocks: ClockGuard
    reservations: Reservations
    subscriptions: StateSubscriptions
    health: HealthReporter
    shared_status: StatusReader

    @property
    def skew(self) -> timedelta:
        return timedelta(seconds=self.settings.SLURM_CLOCK_SKEW_SECONDS)

    @property
    def submission_life(self) -> timedelta:
        """Return how long a submission may be under way, as any clock measures it."""
        return timedelta(seconds=self.slurm.max_call_seconds) + self.skew


def build_services(settings: Settings, slurm: SlurmClient | None = None) -> Services:
    """Build the parts that the settings describe, for another cluster if `slurm` is given.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    parts = _build_parts(settings, slurm)
    delivery = _build_delivery(parts)
    submitter = _build_submitter(parts)
    keys = ApiKeys(parts.store)
    request_guard = build_request_guard(settings, parts.store, keys)
    return Services(
        store=parts.store,
        slurm=parts.slurm,
        poller_slurm=parts.poller_slurm,
        validator=parts.validator,
        submitter=submitter,
        resubmission=Resubmission(parts.store, submitter),
        registration=JobRegistration(parts.store, parts.slurm, parts.planner, parts.validator),
        lookup=_build_lookup(parts),
        waiting=TaskWaiting(parts.subscriptions),
        control=TaskControl(parts.store, parts.slurm, parts.validator.refused_users),
        listing=TaskListing(parts.store),
        bulk_cancellation=BulkCancellation(parts.store, parts.slurm, parts.validator.refused_users),
        dead_letters=DeadLetters(parts.store, tuple(SENDERS)),
        caller_description=CallerDescription(
            parts.store,
            authentication_disabled=request_guard.authentication_disabled,
            requests_per_minute=request_guard.requests_per_minute,
            max_open_tasks=settings.LIMIT_JOBS_IN_FLIGHT,
        ),
        catalogue_listing=CatalogueListing(parts.planner.catalogue),
        operator_view=build_operator_view(
            settings,
            parts.store,
            parts.health,
            {"callers": parts.slurm, "poller": parts.poller_slurm},
            parts.clocks,
            parts.submission_life,
        ),
        request_guard=request_guard,
        keys=keys,
        delivery=delivery,
        monitor=_build_monitor(parts, delivery),
        outages=parts.outages,
    )


def _build_parts(settings: Settings, slurm: SlurmClient | None) -> _Parts:
    metrics = Metrics()
    store = build_store(settings, metrics)
    outages = build_outage_log(settings)
    if slurm is not None:
        poller_slurm = callers_slurm = slurm
    else:
        poller_slurm, callers_slurm = build_slurm_clients(settings, outages, metrics)
    senders = build_senders(settings)
    planner = Planner(build_catalogue(settings), senders, find_channel)
    clocks = ClockGuard(poller_slurm, timedelta(seconds=settings.SLURM_CLOCK_SKEW_SECONDS))
    return _Parts(
        settings=settings,
        outages=outages,
        store=store,
        slurm=callers_slurm,
        poller_slurm=poller_slurm,
        senders=senders,
        planner=planner,
        validator=RequestValidator(planner.catalogue, find_refused_users(settings), settings),
        clocks=clocks,
        reservations=Reservations(store, callers_slurm, clocks),
        subscriptions=StateSubscriptions(store, outages),
        health=HealthReporter(store, poller_slurm, metrics),
        shared_status=StatusReader(store),
    )


def _build_submitter(parts: _Parts) -> TaskSubmitter:
    return TaskSubmitter(
        parts.store,
        parts.slurm,
        parts.planner,
        parts.validator,
        parts.reservations,
        submission_life=parts.submission_life,
        max_open_tasks=parts.settings.LIMIT_JOBS_IN_FLIGHT,
    )


def _build_lookup(parts: _Parts) -> TaskLookup:
    settings, status = parts.settings, parts.shared_status
    per_process = settings.SLURM_REQUESTS_PER_SECOND / settings.GUNICORN_WORKERS
    budget = RequestBudget(per_process, metrics=parts.health.metrics)
    return TaskLookup(
        parts.store, PresentFacts(parts.slurm, budget, now=parts.store.now), lambda: status.last_poll
    )


def _build_delivery(parts: _Parts) -> Delivery:
    settings = parts.settings
    policy = DeliveryPolicy(
        claim_timeout=timedelta(seconds=settings.NOTIFICATIONS_CLAIM_SECONDS),
        retry_window=timedelta(seconds=settings.NOTIFICATIONS_RETRY_SECONDS),
        rate_limit=settings.NOTIFICATIONS_CEILING,
        rate_window=timedelta(seconds=settings.NOTIFICATIONS_WINDOW_SECONDS),
    )
    return Delivery(
        parts.store,
        parts.senders,
        policy,
        methods=tuple(SENDERS),
        context={"settings": settings},
        outages=parts.outages,
        metrics=parts.health.metrics,
    )


def _build_monitor(parts: _Parts, delivery: Delivery) -> Monitor:
    settings = parts.settings
    unknown_after = timedelta(seconds=settings.MONITOR_UNKNOWN_AFTER_SECONDS)
    poller = Poller(parts.store, parts.poller_slurm, parts.planner, unknown_after=unknown_after)
    reconciler = Reconciler(
        parts.store,
        parts.poller_slurm,
        parts.planner,
        submission_life=parts.submission_life,
        skew=parts.skew,
        min_job_age=timedelta(seconds=settings.SLURM_MIN_JOB_AGE_SECONDS),
    )
    return Monitor(
        parts.store,
        parts.reservations,
        poller,
        reconciler,
        delivery,
        parts.clocks,
        MonitorTiming(
            interval=settings.MONITOR_POLLING_SECONDS,
            min_pause=settings.min_polling_pause(),
            lease=settings.MONITOR_LEASE_SECONDS,
            cycle_limit=_MAX_CYCLE_CALLS * parts.slurm.max_call_seconds,
        ),
        parts.health,
        outage_watch=OutageWatch(parts.store, parts.poller_slurm, parts.shared_status, make_process_name),
        callers_slurm=parts.slurm,
        outages=parts.outages,
        on_change=parts.subscriptions.read_soon,
    )
