"""Options, stores and headings that all benchmarks share."""

import argparse
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from app.store.mongo import connect
from app.version import read_version
from benchmarks.cluster import Cluster, MakeConnection
from benchmarks.http_connection import HttpConnection, LibraryConnection


@dataclass(frozen=True, slots=True)
class Store:
    """A store to measure on: SQLite, or the MongoDB at an address."""

    name: str
    mongodb: str | None = None


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mongodb",
        action="append",
        default=[],
        metavar="URI",
        help="measure on this MongoDB, too, alone or a replica set; may be given several times",
    )
    parser.add_argument("--no-sqlite", action="store_true", help="measure on the MongoDBs only")
    parser.add_argument(
        "--stand-in",
        action="store_true",
        help="use a stand-in for Slurm, not the cluster of TEST_SLURM_URL and TEST_SLURM_KEY_PATH;"
        " without these variables it is used in any case",
    )
    return parser


def add_load_options(parser: argparse.ArgumentParser, number: int) -> None:
    """Add the options of benchmarks that compare single requests: one client, then several at a time."""
    parser.add_argument("--number", type=int, default=number, help="requests of one client to each server")
    parser.add_argument(
        "--client",
        choices=("requests", "socket"),
        default="requests",
        help="what the one client uses: the library, as most callers do, or a bare socket, which needs less"
        " time itself, so that both servers look faster and their ratio grows",
    )
    parser.add_argument("--clients", type=int, default=8, help="how many ask at a time, by bare sockets")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long they ask each server")
    parser.add_argument("--workers", type=int, default=1, help="processes of each service")


def choose_connection(options: argparse.Namespace) -> MakeConnection:
    """Return the class of the one client's connections."""
    return LibraryConnection if options.client == "requests" else HttpConnection


def list_stores(options: argparse.Namespace) -> list[Store]:
    """Return the stores that the options name, each with its release."""
    stores = [] if options.no_sqlite else [Store(f"SQLite {sqlite3.sqlite_version}")]
    for uri in options.mongodb:
        with closing(connect(uri, 5)) as client:
            version = client.server_info()["version"]
            kind = "replica set" if "setName" in client.admin.command("hello") else "alone"
        stores.append(Store(f"MongoDB {version}, {kind}", uri))
    return stores


def print_conditions(cluster: Cluster, stores: Sequence[Store]) -> None:
    """Print the conditions of the measurement: versions, processors and the command."""
    parts = [f"slurm-proxy {read_version()}", f"Python {platform.python_version()}"]
    parts += [f"Slurm {cluster.release} ({cluster.api})", *(store.name for store in stores)]
    print("; ".join(parts))
    command = " ".join(["python", "-m", _name_module(), *sys.argv[1:]])
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start: {command}", flush=True)


def _name_module() -> str:
    module = sys.modules["__main__"]
    return module.__spec__.name if module.__spec__ else "benchmarks"
