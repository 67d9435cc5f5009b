"""Options, progress and checks that the commands of `records` share."""

import time
from pathlib import Path

import click

from app.errors import CopyFailed
from app.lifecycle.back_up import StoreBackup
from app.services import Services
from app.store.schema_version import require_known_version
from app.web.request_context import get_settings

FILE = click.Path(path_type=Path)
FORCE = click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
NO_SNAPSHOT = click.option(
    "--no-snapshot",
    is_flag=True,
    help="Read each document as it is at that time, and not all as of one moment; of use only for a MongoDB"
    " that keeps its snapshots too briefly.",
)
_PROGRESS_INTERVAL = 5.0  # seconds


class ProgressLog:
    """Writer of the progress to standard error, every few seconds."""

    def __init__(self) -> None:
        """Begin to wait for the first line."""
        self._shown_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Write a line if the last one is some seconds old."""
        now = time.monotonic()
        if now - self._shown_at >= _PROGRESS_INTERVAL:
            self._shown_at = now
            click.echo(f"{done} of {max(done, total)}", err=True)


def build_backup(services: Services) -> StoreBackup:
    """Return the use cases of backups and exports."""
    settings = get_settings()
    return StoreBackup(services.store, settings.SQLITE_PATH if settings.MONGODB_URI is None else None)


def require_store(services: Services) -> None:
    """Check that there is a store, and that this release understands it.

    Raises:
        CopyFailed: There is none.
        StoreUnavailable: The store does not answer, or is a newer release's.
    """
    if services.store.count_records() is None:
        raise CopyFailed("there is no store yet: the first start of the server creates it")
    require_known_version(services.store.read_schema_version())
