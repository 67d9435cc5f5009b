"""The version of slurm-proxy. `pyproject.toml` is the only place that names it."""

import tomllib
from functools import cache
from pathlib import Path

_PROJECT_FILE = Path(__file__).resolve().parent.parent / "pyproject.toml"


@cache
def read_version() -> str:
    """Return the version, such as `1.0.0`.

    Raises:
        OSError: `pyproject.toml` is not beside the folder `app/`, where it belongs in every installation.
    """
    version: str = tomllib.loads(_PROJECT_FILE.read_text(encoding="utf-8"))["project"]["version"]
    return version
