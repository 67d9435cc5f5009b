"""A backup or an import that is killed in the middle.

python -m tests.support.killed_copy backup|import FILE sqlite|mongodb PLACE [DATABASE COLLECTION]
"""

import os
import signal
import sys
from pathlib import Path

from app.lifecycle.back_up import StoreBackup
from app.lifecycle.import_records import StoreImport
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.support.transfers import LEASE


def die(done: int, _: int) -> None:
    """Kill this process as soon as something is done."""
    if done:
        os.kill(os.getpid(), signal.SIGKILL)


def main(action: str, file: str, kind: str, place: str, *names: str) -> None:
    store: TaskStore = SqliteStore(Path(place)) if kind == "sqlite" else MongoStore(connect(place, 5), *names)
    if action == "backup":
        StoreBackup(store, None).back_up(Path(file), die, overwrite=True)
    else:
        seen: list[int] = []

        def die_after_the_check(done: int, total: int) -> None:
            seen.append(done)
            if done < max(seen):  # the count began anew: the first batch is written
                die(done, total)

        StoreImport(store, LEASE).import_file(Path(file), die_after_the_check, print, force=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
