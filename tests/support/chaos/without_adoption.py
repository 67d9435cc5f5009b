"""The service without the adoption of jobs by their tags, to show that the chaos run notices it."""

from flask import Flask

import app as slurm_proxy
from app.lifecycle.reconcile import Reconciler


def create_app() -> Flask:
    """Return the application, whose reconciler adopts no job."""
    Reconciler._adopt = lambda *_: False  # type: ignore[method-assign]
    return slurm_proxy.create_app()
