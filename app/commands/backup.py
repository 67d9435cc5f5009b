"""Run the command `flask --app app records backup`, once or on a schedule."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.commands.application import require_services
from app.commands.copies import FILE, FORCE, NO_SNAPSHOT, ProgressLog, build_backup, require_store
from app.commands.durations import DURATION
from app.errors import SlurmProxyError
from app.lifecycle.back_up import StoreBackup, find_backup_age
from app.store.transfer import Progress

logger = logging.getLogger(__name__)

_RETRY_INTERVAL = timedelta(minutes=10)  # after a scheduled backup that failed

_Run = Callable[[StoreBackup, Progress], Path]


@click.command("backup")
@click.argument("target", metavar="FILE", type=FILE)
@FORCE
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="FILE is a folder: write a file with the time in its name, and keep the newest N such files.",
)
@click.option(
    "--every", type=DURATION, metavar="TIME", help="Back up again after each TIME, such as 24h; needs --keep."
)
@NO_SNAPSHOT
@with_appcontext
def back_up(target: Path, force: bool, keep: int | None, every: timedelta | None, no_snapshot: bool) -> None:
    """Copy the store to FILE while the service runs.

    The copy of an SQLite database is a snapshot, and FILE can replace the database. The content of a MongoDB
    is written in the form of `records export`, compressed if FILE ends with .gz.
    """
    if keep is None and every is not None:
        raise click.UsageError("--every needs --keep")
    if keep is not None and force:
        raise click.UsageError("--keep never overwrites a file: leave out --force")

    def run(backup: StoreBackup, progress: Progress) -> Path:
        if keep is not None:
            return backup.back_up_to_folder(target, keep, progress, snapshot=not no_snapshot)
        backup.back_up(target, progress, overwrite=force, snapshot=not no_snapshot)
        return target

    if every is None:
        _back_up_once(run)
    else:
        repeat_backup(lambda: _back_up_once(run), every, time.sleep, find_backup_age(target))


def repeat_backup(
    back_up_once: Callable[[], None],
    every: timedelta,
    sleep: Callable[[float], object],
    age: timedelta | None = None,
) -> None:
    """Make backups until the process is stopped; log one that fails, and try again soon.

    Args:
        back_up_once: Makes one backup.
        every: The time between two backups.
        sleep: Waits for some seconds.
        age: The age of the newest backup. The first one is made once that is as old as `every`, so that a
            process that is restarted often does not replace all earlier backups.
    """
    if age is not None and age < every:
        sleep((every - max(age, timedelta())).total_seconds())
    while True:
        began, pause = time.monotonic(), every
        try:
            back_up_once()
        except click.ClickException as error:
            logger.error("the backup failed: %s", error.message)
            pause = min(every, _RETRY_INTERVAL)
        sleep(max(0.0, began + pause.total_seconds() - time.monotonic()))


def _back_up_once(run: _Run) -> None:
    """Make one backup.

    Raises:
        ClickException: It failed.
    """
    services = require_services()
    try:
        require_store(services)
        path = run(build_backup(services), ProgressLog())
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"The backup {path} is complete.", err=True)
