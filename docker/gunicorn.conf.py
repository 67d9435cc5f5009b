"""gunicorn's settings: `gunicorn -c docker/gunicorn.conf.py 'app:create_app()'`."""

import random
import sys
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.gunicorn_settings import get_gunicorn_settings
from app.logs import configure_gunicorn_logging, configure_logging
from app.processors import choose_processor, list_allowed_processors, pin_to_processor

# Servers on a host begin with different processors. Process ids do not differ: each container begins with 1.
_first_processor = random.randrange(1000)  # noqa: S311 - no secret

_source = get_gunicorn_settings(Path(__file__).parent.parent / ".env")

try:
    _settings = _source.read()
except SettingsError as error:
    sys.exit(f"slurm-proxy cannot start: {error}")

bind = _source.bind
workers = _settings.GUNICORN_WORKERS
worker_class = "app.gunicorn_worker.Worker"
threads = _settings.GUNICORN_THREADS  # requests at a time; each connection has its own thread
timeout = 120  # seconds; a submission may wait for slurmrestd, and then look for its job
graceful_timeout = 15  # seconds; what is under way at SIGTERM
errorlog = "-"  # app/web/request_log.py logs requests
forwarder_headers = ""  # else a request with the header SCRIPT_NAME would move all routes
secure_scheme_headers: dict[str, str] = {}  # ACCESS_TRUSTED_PROXIES decides who may name a scheme
control_socket_disable = True  # of gunicorn 25.1 and later; earlier versions do not know it and ignore it


def on_starting(server: Any) -> None:
    """Check settings, store and Slurm once, before the fork; a fault ends the server with its reason."""
    try:
        _source.check_start(server.cfg.address)
    except SettingsError as error:
        sys.exit(f"slurm-proxy cannot start: {error}")


def on_reload(server: Any) -> None:
    """Give gunicorn's own log lines their form again."""
    configure_gunicorn_logging(_settings)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose one processor for a worker, because waking a thread on another processor takes long."""
    allowed = list_allowed_processors() if _settings.GUNICORN_PIN_WORKERS else set()
    taken = [other.processor for other in server.WORKERS.values() if other.processor is not None]
    worker.processor = choose_processor(allowed, taken, _first_processor) if allowed else None


def post_fork(server: Any, worker: Any) -> None:
    """Use the processor that was chosen, if the system lets this process choose."""
    if worker.processor is not None and (fault := pin_to_processor(worker.processor)) is not None:
        server.log.warning("this worker uses all processors, because it cannot be pinned to one: %s", fault)


def post_worker_init(worker: Any) -> None:
    """Start the monitor in each worker, after the fork."""
    configure_logging(worker.wsgi.config["SLURM_PROXY_SETTINGS"])
    worker.wsgi.extensions["slurm_proxy"].start()


def worker_exit(server: Any, worker: Any) -> None:
    """Stop the monitor, which releases its lease."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["slurm_proxy"].stop()
