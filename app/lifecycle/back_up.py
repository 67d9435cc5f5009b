"""Back up the store, or export its content, while the service runs."""

import gzip
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from app.errors import CopyFailed
from app.lifecycle.export_lines import FORM, ExportHeader, ExportWriter
from app.lifecycle.new_file import PARTIAL_SUFFIX, remove_partial_file, writing_new_file
from app.store.schema_version import SCHEMA_VERSION
from app.store.transfer import Progress, StoreTransfer
from app.version import read_version

_GZIP_SUFFIX = ".gz"
_GZIP_LEVEL = 6
_STAMP = "slurm-proxy-%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"slurm-proxy-\d{8}T\d{6}Z\.(sqlite3|jsonl\.gz)")


class StoreBackup:
    """The use cases of `records backup` and `records export`."""

    def __init__(self, store: StoreTransfer, database_file: Path | None) -> None:
        """Create the use cases; `database_file`: the file of the store, if it is one."""
        self._store = store
        self._database_file = database_file

    def back_up(self, path: Path, progress: Progress, *, overwrite: bool, snapshot: bool = True) -> None:
        """Copy the store to a file: an SQLite file as it is, MongoDB as an export.

        Raises:
            CopyFailed: The backup cannot be made; a file of that name stays as it was.
            StoreUnavailable: The store does not answer.
        """
        self._refuse_own_file(path)
        with writing_new_file(path, overwrite=overwrite) as partial:
            if not self._store.copy_database(partial, progress):
                self._write_export(partial, path.suffix == _GZIP_SUFFIX, progress, snapshot=snapshot)

    def back_up_to_folder(
        self, folder: Path, keep: int, progress: Progress, *, snapshot: bool = True
    ) -> Path:
        """Write a backup with a name of the present time, and remove all but the newest `keep` backups.

        Only files with such a name are removed, and only after the new backup is complete.

        Raises:
            CopyFailed: The backup cannot be made, and no backup was removed; or old ones cannot be removed.
            StoreUnavailable: The store does not answer.
        """
        if not folder.is_dir():
            raise CopyFailed(f"there is no folder {folder}: create it, owned by the user of this service")
        form = "sqlite3" if self._database_file is not None else "jsonl.gz"
        path = folder / f"{datetime.now(UTC):{_STAMP}}.{form}"
        self.back_up(path, progress, overwrite=False, snapshot=snapshot)
        try:
            _remove_old_backups(folder, keep, path)
        except OSError as error:
            reason = error.strerror or error
            raise CopyFailed(f"{path} is complete, but old backups cannot be removed: {reason}") from error
        return path

    def export(
        self, path: Path, progress: Progress, *, overwrite: bool, with_keys: bool, snapshot: bool
    ) -> ExportWriter:
        """Write all records to a file, compressed if its name ends with .gz; return the numbers written.

        Raises:
            CopyFailed: The export cannot be made; a file of that name stays as it was.
            StoreUnavailable: The store does not answer.
        """
        self._refuse_own_file(path)
        is_gzip = path.suffix == _GZIP_SUFFIX
        with writing_new_file(path, overwrite=overwrite) as partial:
            return self._write_export(partial, is_gzip, progress, snapshot=snapshot, with_keys=with_keys)

    def _refuse_own_file(self, path: Path) -> None:
        if self._database_file is None:
            return
        own = [Path(f"{self._database_file}{suffix}") for suffix in ("", "-wal", "-shm")]
        if any(file.exists() and os.path.exists(path) and file.samefile(path) for file in own):  # noqa: PTH110
            raise CopyFailed(f"{path} is the database itself: name another file")

    def _write_export(
        self, path: Path, is_gzip: bool, progress: Progress, *, snapshot: bool, with_keys: bool = True
    ) -> ExportWriter:
        with self._store.reading_all(snapshot=snapshot) as content, _writing_export(path, is_gzip) as stream:
            writer = ExportWriter(stream)
            writer.write_header(
                ExportHeader(
                    slurm_proxy_export=FORM,
                    schema_version=SCHEMA_VERSION,
                    release=read_version(),
                    source=content.source,
                    is_snapshot=content.is_snapshot,
                    created_at=datetime.now(UTC),
                    records=content.record_count,
                    has_keys=with_keys,
                )
            )
            for key in content.keys if with_keys else ():
                writer.write_key(key)
            for entry in content.entries:
                writer.write_entry(entry)
                progress(writer.records, content.record_count)
            writer.write_end()
        return writer


@contextmanager
def _writing_export(path: Path, is_gzip: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as plain:
        if not is_gzip:
            yield plain
            return
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, plain) as packed:
            yield packed  # type: ignore[misc]


def find_backup_age(folder: Path) -> timedelta | None:
    """Return the age of the newest complete backup in the folder, by its name; None if there is none."""
    try:
        times = [_parse_backup_time(path) for path in _list_backups(folder)]
    except OSError:
        return None  # the backup itself gives a better error
    return datetime.now(UTC) - max(times) if times else None


def _list_backups(folder: Path) -> list[Path]:
    """Return the complete backups in the folder, the oldest first."""
    return sorted(path for path in folder.iterdir() if _is_backup_name(path.name) and path.is_file())


def _is_backup_name(name: str) -> bool:
    try:
        return _NAME.fullmatch(name) is not None and _parse_backup_time(Path(name)) is not None
    except ValueError:  # there is no such time
        return False


def _parse_backup_time(path: Path) -> datetime:
    return datetime.strptime(path.name.split(".")[0], _STAMP).replace(tzinfo=UTC)


def _remove_old_backups(folder: Path, keep: int, newest: Path) -> None:
    """Remove all but the newest `keep` backups in the folder, and the partial files of killed processes.

    The backup `newest` stays, even if the clock was ahead when another one was made.
    """
    for path in folder.iterdir():
        if path.name.endswith(PARTIAL_SUFFIX) and _is_backup_name(path.name.removesuffix(PARTIAL_SUFFIX)):
            remove_partial_file(path)
    others = [path for path in _list_backups(folder) if path != newest]
    for path in others[: max(len(others) - (keep - 1), 0)]:
        path.unlink(missing_ok=True)
