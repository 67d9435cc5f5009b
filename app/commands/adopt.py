"""Run the command `flask --app app records adopt`."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import click
from flask.cli import with_appcontext

from app.access.audited_submissions import read_audited_submissions
from app.commands.application import require_services
from app.commands.audit import open_audit_file, write_command_entry
from app.commands.copies import FILE, ProgressLog
from app.commands.durations import DURATION
from app.errors import CopyFailed, SlurmProxyError
from app.lifecycle.adopt_jobs import Adoption, AdoptionOutcome, JobAdoption
from app.lifecycle.adoption_window import choose_search_begin, find_newest_record_time
from app.models.audited_submission import AuditedSubmission
from app.slurm.tagged_jobs import TaggedJobs
from app.web.request_context import get_settings

_WITH_EFFECT = (AdoptionOutcome.ADOPTED, AdoptionOutcome.SETTLED)


@click.command("adopt")
@click.option(
    "--since",
    type=DURATION,
    metavar="TIME",
    help="How far back to search: at least to the time of the restored backup. Default: 7d, or to the newest"
    " record if that is older.",
)
@click.option(
    "--audit",
    "trails",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="An audit trail of this service; can be repeated. Default: AUDIT_LOG_PATH.",
)
@click.option("--dry-run", is_flag=True, help="List what would be done, and change nothing.")
@click.pass_context
@with_appcontext
def adopt(context: click.Context, since: timedelta | None, trails: tuple[Path, ...], dry_run: bool) -> None:
    """Record the jobs in Slurm that this service submitted and that no record knows.

    Run this after the restore of a backup, before the server starts. The uuids of the tasks that were
    submitted since the backup count as used again, so that no task runs twice. Open jobs are polled again. No
    message is sent about these tasks, because their settings for notifications are not known. Repeating the
    command changes nothing.
    """
    services = require_services()
    store = services.store
    try:
        open_audit_file()
        store.prepare()
        adoption = JobAdoption(store, services.slurm, services.validator.refused_users)
        newest, now = find_newest_record_time(store), store.now()
        begin = now - since if since else choose_search_begin(newest, now)
        trails = trails or _default_trail()
        audited = list(_read_trails(trails, begin))
        found = adoption.find_jobs(begin, ProgressLog())
        counts: Counter[AdoptionOutcome] = Counter()
        for item in adoption.adopt(found.jobs, audited, dry_run=dry_run):
            counts[item.outcome] += 1
            _show_adoption(item, dry_run=dry_run)
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    _show_counts(counts, begin, "would be " if dry_run else "")
    if newest is not None and newest < begin:
        click.echo(
            f"Warning: the newest record is of {newest:%Y-%m-%d %H:%MZ}, before this search began: give a"
            " longer --since if the restored backup is that old",
            err=True,
        )
    context.exit(0 if _show_warnings(found, has_trail=bool(trails)) else 1)


def _default_trail() -> tuple[Path, ...]:
    path = get_settings().AUDIT_LOG_PATH
    return (path,) if path is not None and path.exists() else ()


def _read_trails(paths: Sequence[Path], since: datetime) -> Iterator[AuditedSubmission]:
    """Yield the submissions in the files.

    Raises:
        CopyFailed: A file cannot be read.
    """
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
                yield from read_audited_submissions(lines, since)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise CopyFailed(f"--audit: {path} cannot be read: {reason}") from error


def _show_adoption(item: Adoption, *, dry_run: bool) -> None:
    """Show the outcome for a job, and write it to the audit trail if the store was changed."""
    found = item.found
    if item.outcome is AdoptionOutcome.KNOWN and not item.reason:
        return
    remark = f", {item.state}" if item.state else f": {item.reason}" if item.reason else ""
    click.echo(f"{item.outcome:<9}{found.uuid}  job {found.job_id} of {found.username}{remark}")
    if item.outcome in _WITH_EFFECT and not dry_run:
        write_command_entry(
            "records adopt", username=found.username, task_uuid=found.uuid, slurm_job_id=found.job_id
        )


def _show_counts(counts: Counter[AdoptionOutcome], begin: datetime, would: str) -> None:
    click.echo(
        f"Jobs since {begin:%Y-%m-%d %H:%MZ}: {counts[AdoptionOutcome.ADOPTED]} {would}adopted,"
        f" {counts[AdoptionOutcome.SETTLED]} reservations {would}settled,"
        f" {counts[AdoptionOutcome.KNOWN]} known, {counts[AdoptionOutcome.IGNORED]} ignored.",
        err=True,
    )


def _show_warnings(found: TaggedJobs, *, has_trail: bool) -> bool:
    """Show the gaps of the search; return whether the search was complete."""
    if found.unread:
        click.echo(f"Warning: {found.unread} jobs in slurmctld could not be read: run this again", err=True)
    for fault in found.faults:
        click.echo(f"Warning: {fault}", err=True)
    if found.without_comment:
        advice = (
            "only the audit trail shows which of them are tasks. Give its rotated files with --audit, too."
            if has_trail
            else "nothing shows which of them are tasks. Give the audit trail with --audit."
        )
        click.echo(
            f"Warning: {found.without_comment} jobs are in slurmdbd alone and have no comment, so that"
            f" {advice} For the future, set AccountingStoreFlags=job_comment in slurm.conf.",
            err=True,
        )
    return not found.unread and not found.faults
