"""Add the records and keys of an export to a store that no server uses."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Protocol

from app.errors import CopyFailed
from app.lifecycle.read_export import read_export, verify_export
from app.models.api_key import ApiKey
from app.store.lease import LeaderLease
from app.store.transfer import Entry, ImportResult, Progress, StoreTransfer

_BATCH_SIZE = 500  # records
_BATCH_BYTES = 8 * 2**20  # about: a record may have megabytes


class _Store(StoreTransfer, LeaderLease, Protocol):
    """The parts of a store that an import needs."""


@dataclass(slots=True)
class ImportReport:
    """Result of an import: the numbers of records and keys by outcome."""

    added: int = 0
    present: int = 0  # in the store already, with the same content
    conflicts: int = 0
    seconds: float = field(default_factory=lambda: -time.monotonic())  # negative until the end

    def count(self, result: ImportResult) -> None:
        """Count the result of one record or key."""
        self.added += result.was_added
        self.conflicts += result.conflict is not None
        self.present += not result.was_added and result.conflict is None


class StoreImport:
    """The use case of `records import`."""

    def __init__(self, store: _Store, lease: timedelta) -> None:
        """Create the use case; `lease`: how long a lease lasts."""
        self._store = store
        self._lease = lease
        self._owner = f"import:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def import_file(
        self, path: Path, progress: Progress, report_conflict: Callable[[str], None], *, force: bool
    ) -> ImportReport:
        """Check the whole file, then add the records and keys that are missing; repeating changes nothing.

        A record or key that the store has with other content is reported, and not changed. The import holds
        the leader's lease, so that no server polls half of the records.

        Raises:
            CopyFailed: The file cannot be used, or a server uses the store. Nothing was added, unless the
                server began to use it during the import.
            StoreRefused: A newer release wrote the file.
            StoreUnavailable: The store does not answer. What was added so far stays.
        """
        total = verify_export(path, progress).records
        if not force:
            self._hold_lease()
        try:
            report, held_at = ImportReport(), time.monotonic()
            for batch in _make_batches(read_export(path)):
                if not force and time.monotonic() - held_at > self._lease.total_seconds() / 3:
                    self._hold_lease()
                    held_at = time.monotonic()
                for result in self._import_batch(batch):
                    report.count(result)
                    if result.conflict:
                        report_conflict(result.conflict)
                progress(report.added + report.present + report.conflicts, total)
        finally:
            if not force:
                self._store.release_lease(self._owner)
        report.seconds += time.monotonic()
        return report

    def _import_batch(self, batch: list[ApiKey | Entry]) -> Iterable[ImportResult]:
        keys = [item for item in batch if isinstance(item, ApiKey)]
        entries = [item for item in batch if isinstance(item, Entry)]
        return chain(
            self._store.import_keys(keys) if keys else (),
            self._store.import_entries(entries) if entries else (),
        )

    def _hold_lease(self) -> None:
        """Acquire or renew the leader's lease.

        Raises:
            CopyFailed: Another process holds it.
        """
        now = self._store.now()
        if self._store.acquire_lease(self._owner, now, now + self._lease) is None:
            seconds = self._lease.total_seconds()
            raise CopyFailed(
                f"a server uses the store, or was killed less than {seconds:g} seconds ago: stop every server"
                " of this store, or give --force"
            )


def _make_batches(items: Iterable[tuple[ApiKey | Entry, int]]) -> Iterator[list[ApiKey | Entry]]:
    """Yield batches that are limited in number and in bytes."""
    batch: list[ApiKey | Entry] = []
    size = 0
    for item, item_size in items:
        batch.append(item)
        size += item_size
        if len(batch) >= _BATCH_SIZE or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
