"""Checks what a server needs before it begins to serve, and says what is missing.

What is wrong for certain stops the start. What an outage may be the reason of is only logged: the server
starts, and works as soon as the outage is over.
"""

import logging
import sys

from app.constants import Settings
from app.environment import dubious_names
from app.errors import SettingsError, SlurmMisbehaved, SlurmUnavailable, StoreRefused, StoreUnavailable
from app.services import Services
from app.slurm.diagnosis import check_slurm

logger = logging.getLogger(__name__)


def run_start_checks(services: Services, settings: Settings) -> None:
    """Make the store ready, find out whether Slurm can be used, and log who may call; before any fork.

    Ends the process with 3 if the store cannot be reached.

    Raises:
        SettingsError: A setting is wrong for certain.
    """
    log_dubious_names()
    prepare_store_or_exit(services, settings)
    log_slurm_outage(settings)
    log_access_mode(settings)


def prepare_store_or_exit(services: Services, settings: Settings) -> None:
    """Make the store ready; end the process with 3 if it cannot be reached.

    Raises:
        SettingsError: The store refuses this service.
    """
    try:
        services.store.prepare()
    except StoreRefused as error:
        raise SettingsError(f"{'MONGODB_URI' if settings.MONGODB_URI else 'SQLITE_PATH'}: {error}") from error
    except StoreUnavailable as error:
        if settings.MONGODB_URI:
            print(" * MongoDB connection failed - is the server running?", file=sys.stderr)  # noqa: T201
            print(f"Error: {error.__cause__ or error}", file=sys.stderr)  # noqa: T201
        else:
            print(f"slurm-proxy cannot start: SQLITE_PATH: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(3)


def log_slurm_outage(settings: Settings) -> None:
    """Log why Slurm cannot be used now, if it cannot.

    Raises:
        SettingsError: A setting is the reason for certain.
    """
    try:
        check_slurm(settings)
    except (SlurmUnavailable, SlurmMisbehaved) as error:
        logger.warning("Slurm cannot be used yet, and is tried again: %s", error)


def log_dubious_names() -> None:
    """Log variables that are no settings, but nearly, and those of the older server."""
    for sentence in dubious_names():
        logger.warning(sentence)


def log_access_mode(settings: Settings) -> None:
    """Log who may call."""
    if settings.ACCESS_METHODS:
        logger.info("callers authenticate by: %s", ", ".join(settings.ACCESS_METHODS))
    elif settings.ACCESS_WITHOUT_PROOF:
        words = (
            "there is no authentication: every client that reaches this server can run anything as any user"
        )
        logger.warning(words)
    else:
        whose = "of all users" if settings.ACCESS_ALL_LOCAL_USERS else "of this user and of root"
        logger.info("there is no authentication: only processes %s on this machine are served", whose)
