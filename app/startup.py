"""Check settings, Slurm and the store before a server serves requests.

A fault that is certainly a mistake stops the start. A fault that an outage may have caused is only logged:
the server starts, and works as soon as the outage is over.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from app.constants import Settings
from app.environment import list_setting_warnings
from app.errors import SettingsError, SlurmMisbehaved, SlurmUnavailable, StoreRefused, StoreUnavailable
from app.services import Services
from app.slurm.diagnosis import check_slurm

logger = logging.getLogger(__name__)


def run_start_checks(services: Services, settings: Settings) -> None:
    """Check Slurm, prepare the store, and log how callers authenticate; call this before any fork.

    The store comes after Slurm, so that a start that is refused takes over no record of the older server. If
    the store cannot be reached, the process ends with the exit status 3.

    Raises:
        SettingsError: A setting is wrong for certain.
    """
    log_setting_warnings(settings)
    log_slurm_outage(settings)
    prepare_store_or_exit(services, settings)
    log_access_mode(settings)


def prepare_store_or_exit(services: Services, settings: Settings) -> None:
    """Prepare the store; end the process with the exit status 3 if the store cannot be reached.

    Raises:
        SettingsError: The store refuses this service.
    """
    try:
        count = services.store.count_records()
        services.store.prepare()
    except StoreRefused as error:
        raise SettingsError(f"{'MONGODB_URI' if settings.MONGODB_URI else 'SQLITE_PATH'}: {error}") from error
    except StoreUnavailable as error:
        if settings.MONGODB_URI:
            print(" * MongoDB connection failed - is the server running?", file=sys.stderr)  # noqa: T201
            print(f"Error: MONGODB_URI: {error}: start it, or correct the address", file=sys.stderr)  # noqa: T201
        else:
            print(f"slurm-proxy cannot start: SQLITE_PATH: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(3)
    store = describe_store(settings)
    logger.info("%s %s", store, "was created" if count is None else f"has {format_record_count(count)}")


def find_socket_folder_faults(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each Unix socket of GUNICORN_BIND whose folder is missing."""
    for address in settings.gunicorn_addresses():
        folder = Path(address.removeprefix("unix:").removeprefix("//")).parent
        if address.startswith("unix:") and not folder.is_dir():
            yield f"GUNICORN_BIND: there is no folder {folder}: create it, owned by the user of this service"


def describe_store(settings: Settings) -> str:
    """Return where the records are: a collection of MongoDB, or a file."""
    if settings.MONGODB_URI is None:
        return str(settings.SQLITE_PATH)
    return f"MongoDB {settings.MONGODB_MONITOR_DB}.{settings.MONGODB_MONITOR_JOBS_COLLECTION}"


def format_record_count(count: int) -> str:
    """Return a number of records in words."""
    return "1 record" if count == 1 else f"{count} records"


def log_slurm_outage(settings: Settings) -> None:
    """Log the reason if Slurm cannot be used now.

    Raises:
        SettingsError: A setting is the reason for certain.
    """
    try:
        check_slurm(settings)
    except (SlurmUnavailable, SlurmMisbehaved) as error:
        logger.warning("Slurm cannot be used yet, and is tried again: %s", error)


def log_setting_warnings(settings: Settings) -> None:
    """Log each setting that may not have the effect that its operator expects."""
    for sentence in list_setting_warnings(settings):
        logger.warning(sentence)


def log_access_mode(settings: Settings) -> None:
    """Log how callers authenticate."""
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
