"""gunicorn's settings: `gunicorn -c docker/gunicorn.conf.py 'app:create_app()'`."""

import sys
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from app.constants import Settings
from app.environment import read_settings
from app.errors import SettingsError
from app.logs import configure
from app.services import build_services
from app.startup import run_start_checks

load_dotenv(Path(__file__).parent.parent / ".env")

try:
    _settings = read_settings()
except SettingsError as error:
    sys.exit(f"slurm-proxy cannot start: {error}")

bind = _settings.GUNICORN_BIND
workers = _settings.GUNICORN_WORKERS
worker_class = "app.gunicorn_worker.Worker"
threads = _settings.GUNICORN_THREADS  # requests at a time; each connection has its own thread
timeout = 120  # seconds; a submission may wait for slurmrestd, and then look for its job
graceful_timeout = 15  # seconds; what is under way at SIGTERM
errorlog = "-"  # requests are told by our own log
forwarder_headers = ""  # else a request with the header SCRIPT_NAME would move all routes
control_socket_disable = True  # of gunicorn 25.1 and later; earlier versions do not know it and ignore it


def on_starting(server: Any) -> None:
    """Check settings, store and Slurm once, before the fork; a fault ends the server with its reason."""
    try:
        configure(_settings)
        _check_addresses(_settings, server.cfg.address)
        services = build_services(_settings)
        run_start_checks(services, _settings)
    except SettingsError as error:
        sys.exit(f"slurm-proxy cannot start: {error}")
    services.stop()


def _check_addresses(settings: Settings, addresses: list[Any]) -> None:
    """Of TCP the hosts; a Unix socket is open to all users of the machine, and to proxies."""
    for address in addresses:
        settings.check_address(address[0] if isinstance(address, tuple) else str(address))


def post_worker_init(worker: Any) -> None:
    """Starts the monitor in each worker, after the fork."""
    configure(worker.wsgi.config["SLURM_PROXY_SETTINGS"])
    worker.wsgi.extensions["slurm_proxy"].start()


def worker_exit(server: Any, worker: Any) -> None:
    """Stops the monitor and gives its lease back."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["slurm_proxy"].stop()
