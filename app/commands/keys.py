"""Run the commands `flask --app app keys create | list | revoke`."""

from datetime import datetime, timedelta
from typing import Any

import click
from flask.cli import AppGroup
from pydantic import ValidationError

from app.access.keys import ApiKeys
from app.commands.application import require_services
from app.commands.audit import open_audit_file, write_command_entry
from app.commands.grants import build_grant, describe_grant, list_grant_warnings, require_no_refused_user
from app.errors import SlurmProxyError
from app.models.api_key import ApiKey
from app.models.caller import Scope
from app.web.request_context import get_settings

keys = AppGroup("keys", help="Create, list and revoke API keys.")

_ROW = "{:<14}{:<24}{:<18}{:<18}{:<18}{}"
_SCOPES = click.Choice([scope.value for scope in Scope])
_DAYS = click.IntRange(1, 36_500)


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=_SCOPES,
    help="A scope of the key. Default: all but monitor and admin.",
)
@click.option("--user", "users", multiple=True, help="A Slurm user that the key may act for.")
@click.option("--group", "groups", multiple=True, help="A Unix group whose members the key may act for.")
@click.option("--any-user", is_flag=True, help="The key may act for every user.")
@click.option("--partition", "partitions", multiple=True, help="A partition that jobs may use. Default: any.")
@click.option("--account", "accounts", multiple=True, help="An account that jobs may use. Default: any.")
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    help="A pattern of receivers, such as email:*@example.com. Default: any.",
)
@click.option("--days", type=_DAYS, help="Days until the key expires. Default: never.")
def create(name: str, **options: Any) -> None:
    """Create a key called NAME and show it. It is shown only once, because only its hash is stored.

    All options but --any-user and --days can be repeated.
    """
    services = require_services()
    lifetime = timedelta(days=options["days"]) if options["days"] else None
    try:
        grant = build_grant(options, get_settings().TASK_USERNAME_PATTERN)
        require_no_refused_user(grant, services.validator.refused_users)
        api_keys = _require_keys()
        open_audit_file()
        text, key = api_keys.create(name, grant, lifetime)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        option = f"--{str(fault['loc'][0]).removesuffix('s')}: " if fault["loc"] else ""
        raise click.UsageError(option + fault["msg"].removeprefix("Value error, ")) from error
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    _audit("keys create", key)
    click.echo(text)
    for words in list_grant_warnings(grant):
        click.echo(f"Warning: {words}", err=True)
    click.echo(
        f"This is the key {key.id} of {name}, stored in {_store_location()}. It is not shown again.", err=True
    )


@keys.command("list")
def list_() -> None:
    """List all keys, the oldest first."""
    api_keys = _require_keys()
    click.echo(_ROW.format("ID", "NAME", "EXPIRES", "LAST USED", "REVOKED", "MAY"))
    for key in api_keys.list_all():
        moments = map(_format_time, (key.expires_at, key.last_used_at, key.revoked_at))
        click.echo(_ROW.format(key.id, key.name, *moments, describe_grant(key.grant)))


@keys.command("revoke")
@click.argument("id_", metavar="ID")
def revoke(id_: str) -> None:
    """Revoke the key with that ID, which `keys list` shows. The next request with it is refused."""
    api_keys = _require_keys()
    open_audit_file()
    is_revoked = api_keys.revoke(id_)
    key = next((key for key in api_keys.list_all() if key.id == id_), None)
    if key is None or not is_revoked:
        words = "is revoked already" if key else "does not exist: give an ID that `keys list` shows"
        raise click.ClickException(f"the key {id_} {words}")
    _audit("keys revoke", key)
    click.echo(f"The key {id_} is revoked.")


def _require_keys() -> ApiKeys:
    """Return the keys of a store that is ready.

    Raises:
        ClickException: The store cannot be used.
    """
    services = require_services()
    try:
        services.store.prepare()
    except SlurmProxyError as error:
        raise click.ClickException(str(error)) from error
    return services.keys


def _audit(action: str, key: ApiKey) -> None:
    write_command_entry(action, key=f"key:{key.name}:{key.id}", grant=describe_grant(key.grant))


def _store_location() -> str:
    return "MongoDB" if get_settings().MONGODB_URI else str(get_settings().SQLITE_PATH)


def _format_time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%MZ}" if at else "-"
