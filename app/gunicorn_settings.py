"""Read the settings of a gunicorn server: at its start, and again at each reload (SIGHUP).

gunicorn executes `docker/gunicorn.conf.py` again for each reload, and ends if that fails. Values that have to
outlast a reload are kept here.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from app.constants import Settings
from app.environment import EnvironmentFile, read_settings
from app.errors import SettingsError
from app.logs import configure_logging
from app.services import build_services
from app.startup import (
    find_socket_folder_faults,
    log_access_mode,
    log_setting_warnings,
    log_slurm_outage,
    prepare_store_or_exit,
    run_start_checks,
)

logger = logging.getLogger(__name__)

_STORE_SETTINGS = ("MONGODB_URI", "MONGODB_MONITOR_DB", "MONGODB_MONITOR_JOBS_COLLECTION", "SQLITE_PATH")
_Address = tuple[str, int] | tuple[str, int, int, int] | str


class GunicornSettings:
    """The settings of a gunicorn server, which a reload replaces."""

    def __init__(self, path: Path) -> None:
        """Name the file of variables; `read` reads it."""
        self._file = EnvironmentFile(path)
        self._in_use: Settings | None = None
        self._addresses: Sequence[_Address] = ()
        self.bind: list[str] = []

    def read(self) -> Settings:
        """Return the settings of the environment and the file.

        At a reload, settings that cannot be used are logged, and those in use are returned. `bind` keeps the
        value of the start: gunicorn closes its sockets before it knows whether it can open others.

        Raises:
            SettingsError: At the start, settings cannot be used.
        """
        before = self._file.variables
        try:
            self._file.load()
            settings = read_settings()
            if self._in_use is not None:
                self._apply(settings, self._in_use)
            elif faults := list(find_socket_folder_faults(settings)):
                raise SettingsError("; ".join(faults))
        except (SettingsError, SystemExit) as error:
            if self._in_use is None:
                raise
            self._file.restore(before)
            configure_logging(self._in_use)
            words = str(error) if isinstance(error, SettingsError) else "the store cannot be reached"
            logger.error("the new settings cannot be used, and the old ones stay: %s", words)
            return self._in_use
        self._in_use = settings
        self.bind = self.bind or settings.gunicorn_addresses()
        return settings

    def check_start(self, addresses: Sequence[_Address]) -> None:
        """Check settings, store and Slurm before the first fork; `addresses`: where gunicorn listens.

        If the store cannot be reached, the process ends with the exit status 3.

        Raises:
            SettingsError: A setting is wrong for certain.
        """
        settings = self._in_use or self.read()
        self._addresses = addresses
        configure_logging(settings)
        _check_addresses(settings, addresses)
        services = build_services(settings)
        run_start_checks(services, settings)
        services.stop()

    def _apply(self, settings: Settings, in_use: Settings) -> None:
        """Check new settings as a start does, without a second preparation of the same store.

        Raises:
            SettingsError: The settings cannot be used.
        """
        configure_logging(settings)
        _check_addresses(settings, self._addresses)
        services = build_services(settings)
        try:
            log_setting_warnings(settings)
            log_slurm_outage(settings)
            if any(getattr(settings, name) != getattr(in_use, name) for name in _STORE_SETTINGS):
                prepare_store_or_exit(services, settings)
            log_access_mode(settings)
        finally:
            services.stop()
        if settings.gunicorn_addresses() != self.bind:
            logger.warning("GUNICORN_BIND has changed: restart the server, a reload keeps the old address")
        logger.info("the settings were read again")


@cache
def get_gunicorn_settings(path: Path) -> GunicornSettings:
    """Return the settings of the server whose `.env` is at `path`; the same object at all reloads."""
    return GunicornSettings(path)


def _check_addresses(settings: Settings, addresses: Iterable[_Address]) -> None:
    """Check that a server without authentication is not reachable by others.

    A Unix socket is open to all users of the machine, and to proxies.

    Raises:
        SettingsError: Others can reach an address, and callers do not authenticate.
    """
    for address in addresses:
        settings.check_address(address[0] if isinstance(address, tuple) else str(address), "GUNICORN_BIND")
