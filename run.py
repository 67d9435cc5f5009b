"""Serve slurm-proxy for development: `python run.py`, or `python run.py --demo` without any Slurm."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from app import create_app
from app.demo.tour import run_demo
from app.environment import EnvironmentFile, read_settings
from app.errors import SettingsError
from app.logs import configure_logging
from app.web.dev_server import Server


def main() -> int:
    """Run the server or the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description="Serves slurm-proxy for development.")
    parser.add_argument(
        "--demo",
        action="store_true",
        help="run on a local stand-in for Slurm: jobs are processes of this machine, for trying things out",
    )
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a script's background job begins without it
        signal.signal(number, _stop)
    try:
        EnvironmentFile(Path(__file__).with_name(".env")).load()
        configure_logging(read_settings())
        return run_demo(Path.cwd() / "demo") if arguments.demo else _serve()
    except SettingsError as error:
        print(f"slurm-proxy cannot start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _serve() -> int:
    """Serve until a signal arrives; return the exit status.

    Raises:
        SettingsError: A setting is missing or wrong.
    """
    settings = read_settings()
    if settings.SLURM_REST_HOST is None:
        raise SettingsError(
            "set SLURM_REST_HOST to the address of your cluster's slurmrestd and SLURM_JWT_HS256_KEY_PATH"
            " to its key (.env.example explains both), or add --demo to run without a cluster"
        )
    server = Server(create_app(), settings)
    with server:
        print(f" * slurm-proxy listens on {server.url}", flush=True)
        server.wait()
    return 0


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    """Stop the server in order: answer the requests at hand, and release the lease."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
