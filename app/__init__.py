"""slurm-proxy: a REST service that submits JSON tasks to a Slurm cluster and announces their end.

The steps of a new route are in `app/web/openapi/operations.py`.
"""

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response

from app import (
    commands,
    task_callers,
    task_control,
    task_health,
    task_monitoring,
    task_notifications,
    task_resubmission,
    task_slurm_rest,
    task_submission,
)
from app.constants import MAX_BODY_BYTES, Settings
from app.environment import read_settings
from app.errors import SettingsError
from app.models.answers import Health
from app.services import build_services
from app.web import api_docs, auth, error_handlers
from app.web.json_response import make_json_response


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return a new application; `config` overrides settings of the environment by their names.

    No connection is opened and no thread is started: `app.extensions["slurm_proxy"].start()` does that.

    Raises:
        SettingsError: A setting is missing or wrong. `flask` gets an application with commands only.
    """
    try:
        commands.require_readable_files()
        app = _build_web_application(read_settings(config))
    except SettingsError as error:
        if not commands.is_command_line():
            raise
        app = commands.build_command_application(error)
    for command in commands.COMMANDS:
        app.cli.add_command(command)
    return app


def _build_web_application(settings: Settings) -> Flask:
    logging.getLogger("app").setLevel(settings.LOG_LEVEL)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["SLURM_PROXY_SETTINGS"] = settings
    app.json.sort_keys = False  # type: ignore[attr-defined]  # a task comes back in its own order
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.extensions["slurm_proxy"] = build_services(settings)
    routes = (
        task_submission,
        task_monitoring,
        task_resubmission,
        task_control,
        task_callers,
        task_notifications,
        task_health,
        task_slurm_rest,
        api_docs,
    )
    for module in routes:
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/ping", view_func=ping)
    app.add_url_rule("/healthz", view_func=check_health)
    auth.register_authentication(app)
    error_handlers.register_error_handlers(app)
    return app


@auth.allow_unauthenticated
def ping() -> tuple[str, dict[str, str]]:
    """Return `pong`, which shows that the process answers."""
    return "pong", {"Content-Type": "text/plain; charset=utf-8"}


@auth.allow_unauthenticated
def check_health() -> Response:
    """Return 200 while the process lives, even if Slurm or the database is down."""
    return make_json_response(Health())
