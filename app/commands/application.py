"""Build the application of the command line, which also runs where settings are wrong."""

from pathlib import Path

import click
from dotenv import find_dotenv
from flask import Flask, current_app
from flask.helpers import get_load_dotenv

from app.environment import require_readable_file
from app.errors import SettingsError
from app.services import Services


def is_command_line() -> bool:
    """Return whether `flask` looks up a command, and is not running one of its own, such as `flask run`."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, click.Group)


def require_readable_files() -> None:
    """Check the files that `flask` has loaded into the environment; any other program loads none.

    Raises:
        SettingsError: A file has a line that cannot be read. `flask` itself only prints a warning.
    """
    if click.get_current_context(silent=True) is None or not get_load_dotenv():
        return
    for name in (".env", ".flaskenv"):
        if path := find_dotenv(name, usecwd=True):
            require_readable_file(Path(path))


def build_command_application(error: SettingsError) -> Flask:
    """Return an application with commands only; each command that needs the settings raises `error`."""
    app = Flask("app", static_folder=None)
    app.extensions["slurm_proxy_fault"] = error
    return app


def require_services() -> Services:
    """Return the services of the application.

    Raises:
        SettingsError: The settings are wrong.
    """
    if (error := current_app.extensions.get("slurm_proxy_fault")) is not None:
        raise error
    services: Services = current_app.extensions["slurm_proxy"]
    return services
