"""The version of slurm-proxy. `pyproject.toml` is the only place that names it."""

import tomllib
from pathlib import Path

VERSION: str = tomllib.loads(
    Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
)["project"]["version"]
