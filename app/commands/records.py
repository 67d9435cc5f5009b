"""Run the commands `flask --app app records backup | export | import | adopt`."""

from datetime import timedelta
from itertools import count
from pathlib import Path

import click
from flask.cli import AppGroup

from app.commands.adopt import adopt
from app.commands.application import require_services
from app.commands.audit import open_audit_file, write_command_entry
from app.commands.backup import back_up
from app.commands.copies import FILE, FORCE, NO_SNAPSHOT, ProgressLog, build_backup, require_store
from app.errors import SlurmProxyError
from app.lifecycle.import_records import StoreImport
from app.web.request_context import get_settings

records = AppGroup("records", help="Back up, move and complete the records.")
records.add_command(back_up)
records.add_command(adopt)

_MAX_CONFLICTS = 20  # that are shown


@records.command("export")
@click.argument("path", metavar="FILE", type=FILE)
@FORCE
@click.option("--without-keys", is_flag=True, help="Leave out the API keys.")
@NO_SNAPSHOT
def export(path: Path, force: bool, without_keys: bool, no_snapshot: bool) -> None:
    """Write all records, notifications and API keys to FILE, one JSON object a line.

    FILE is compressed if its name ends with .gz. It contains the hashes of the keys, and not the keys.
    Claims, leases and rate limits are left out.
    """
    services = require_services()
    try:
        require_store(services)
        services.store.prepare()
        written = build_backup(services).export(
            path, ProgressLog(), overwrite=force, with_keys=not without_keys, snapshot=not no_snapshot
        )
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{path} has {written.records} records and {written.keys} API keys.", err=True)


@records.command("import")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--force", is_flag=True, help="Import even while a server uses the store.")
@click.pass_context
def import_(context: click.Context, path: Path, force: bool) -> None:
    """Add the records and API keys in FILE, which `records export` or `records backup` wrote.

    The whole file is checked first. A record that the store already has is not changed. If its content
    differs, the conflict is reported, and the exit code is 1. An import that was stopped can be repeated.
    """
    services = require_services()
    lease = timedelta(seconds=get_settings().MONITOR_LEASE_SECONDS)
    numbers = count(1)

    def report_conflict(words: str) -> None:
        if next(numbers) <= _MAX_CONFLICTS:
            click.echo(f"Not imported: {words}", err=True)

    try:
        open_audit_file()
        services.store.prepare()
        report = StoreImport(services.store, lease).import_file(
            path, ProgressLog(), report_conflict, force=force
        )
        services.store.prepare()  # takes over open records of the older server
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    write_command_entry("records import")
    rate = (report.added + report.present) / max(report.seconds, 0.001)
    click.echo(
        f"{report.added} added, {report.present} there already, {report.conflicts} not imported;"
        f" {rate:.0f} a second.",
        err=True,
    )
    context.exit(1 if report.conflicts else 0)
