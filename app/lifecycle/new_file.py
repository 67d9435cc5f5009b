"""Write a file that appears complete, or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.errors import CopyFailed
from app.unwritable_file import explain_unwritable

PARTIAL_SUFFIX = ".partial"


@contextmanager
def writing_new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield the path of an empty file beside `path`; rename it to `path` after the block.

    Only its owner can read the file. It is on the disk before it gets its name. If the block raises, nothing
    remains. If the process is killed, the next call for the same path removes what remained.

    Raises:
        CopyFailed: The file exists and may not be overwritten, cannot be written, or is being written.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        partial.exists()
    except OSError as error:  # its name is too long
        raise CopyFailed(f"{path} cannot be written: {error.strerror}") from error
    if path.is_dir() or not path.parent.is_dir():
        raise CopyFailed(explain_unwritable(path))
    _refuse_existing_file(path, overwrite=overwrite)
    with _locked_file(partial) as descriptor:
        try:
            os.ftruncate(descriptor, 0)
            os.fchmod(descriptor, 0o600)
            yield partial
            os.fsync(descriptor)
            _refuse_existing_file(path, overwrite=overwrite)
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise CopyFailed(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)


def remove_partial_file(partial: Path) -> None:
    """Remove a file that a killed process has left, unless a process is writing it."""
    with suppress(CopyFailed), _locked_file(partial):
        partial.unlink(missing_ok=True)


def _refuse_existing_file(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not path.is_file():
        raise CopyFailed(f"{path} is a device, a pipe or a socket: name a file")
    if path.exists() and not overwrite:
        raise CopyFailed(f"{path} exists already: name another file, or give --force")


@contextmanager
def _locked_file(path: Path) -> Iterator[int]:
    """Open or create a file, and hold a lock on it during the block.

    Raises:
        CopyFailed: Another process has the file open, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CopyFailed(f"{explain_unwritable(path)} ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise BlockingIOError  # another process has finished it between the two calls
        yield descriptor
    except BlockingIOError as error:
        raise CopyFailed(f"another process is writing {path}") from error
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
