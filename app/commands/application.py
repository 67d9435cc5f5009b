"""Build the application of the command line, which also runs with wrong settings."""

import click
from flask import Flask, current_app

from app.errors import SettingsError
from app.services import Services


def is_command_line() -> bool:
    """Return whether `flask` looks for commands; not while it runs one of its own, such as `flask run`."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, click.Group)


def command_application(error: SettingsError) -> Flask:
    """Return an application that only has commands; those that need the settings raise `error`."""
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
