"""Measure backup, export and import of a store with many records, and the memory that they take.

python -m benchmarks.copies [RECORDS] [mongodb://…]
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from app.lifecycle.back_up import StoreBackup
from app.lifecycle.import_records import StoreImport
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from benchmarks.command import Store
from benchmarks.fill import fill_store
from benchmarks.service import store_settings

RECORDS = 100_000


def quiet(_: int, __: int) -> None:
    """Show no progress."""


def measure(name: str, count: int, run: Callable[[], object]) -> None:
    began = time.monotonic()
    run()
    seconds = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<36}{seconds:>7.1f} s{count / seconds:>9.0f} records/s   peak {memory:.0f} MB", flush=True)


def copy_all(name: str, store: TaskStore, target: TaskStore, folder: Path, count: int) -> None:
    backup = StoreBackup(store, None)
    options = {"overwrite": True, "with_keys": True, "snapshot": True}
    file, packed = folder / "export.jsonl", folder / "export.jsonl.gz"
    measure(f"{name}: backup", count, lambda: backup.back_up(folder / "backup", quiet, overwrite=True))
    measure(f"{name}: export", count, lambda: backup.export(file, quiet, **options))
    measure(f"{name}: export, compressed", count, lambda: backup.export(packed, quiet, **options))
    target.prepare()
    copier = StoreImport(target, timedelta(seconds=30))
    measure(f"{name}: import", count, lambda: copier.import_file(file, quiet, print, force=False))
    measure(f"{name}: import, repeated", count, lambda: copier.import_file(file, quiet, print, force=False))
    sizes = {path.name: path.stat().st_size / count for path in (folder / "backup", file, packed)}
    print(f"{name}: bytes a record: {', '.join(f'{key} {size:.0f}' for key, size in sizes.items())}")


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0]) if arguments else RECORDS
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as text:
        folder = Path(text)
        sqlite = Store("SQLite")
        fill_store(sqlite, folder, (), count)
        path = Path(store_settings(sqlite, folder)["SQLITE_PATH"])
        with closing(SqliteStore(path)) as store, closing(SqliteStore(folder / "target.sqlite3")) as target:
            copy_all("SQLite", store, target, folder, count)
    if len(arguments) > 1:
        with tempfile.TemporaryDirectory() as text, closing(connect(arguments[1], 60)) as client:
            folder = Path(text)
            mongodb = Store("MongoDB", arguments[1])
            fill_store(mongodb, folder, (), count)
            database = store_settings(mongodb, folder)["MONGODB_MONITOR_DB"]
            try:
                source, moved = (MongoStore(client, database, name) for name in ("jobs", "moved"))
                copy_all("MongoDB", source, moved, folder, count)
            finally:
                client.drop_database(database)


if __name__ == "__main__":
    main(sys.argv[1:])
