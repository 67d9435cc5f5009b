"""gunicorn's settings: `gunicorn -c docker/gunicorn.conf.py 'app:create_app()'`."""

import logging
import os
from typing import Any

from app.services import start_or_exit

bind = os.environ.get("GUNICORN_BIND", "127.0.0.1:5001")
workers = int(os.environ.get("GUNICORN_WORKERS", "2"))
worker_class = "gthread"
threads = int(os.environ.get("GUNICORN_THREADS", "8"))
timeout = 120  # seconds; a submission may wait for slurmrestd, and then look for its job
graceful_timeout = 15  # seconds; what is under way at SIGTERM
accesslog = "-"
errorlog = "-"


def post_worker_init(worker: Any) -> None:
    """Starts the monitor in each worker, after the fork; without its store the server ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    start_or_exit(worker.wsgi.extensions["slurm_proxy"], worker.wsgi.config["SLURM_PROXY_SETTINGS"])


def worker_exit(server: Any, worker: Any) -> None:
    """Stops the monitor and gives its lease back."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["slurm_proxy"].stop()
