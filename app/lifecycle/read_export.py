"""Verify an export as a whole, and read it."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from pydantic import ValidationError

from app.errors import CopyFailed
from app.lifecycle.export_lines import FORM, ExportEnd, ExportHeader, parse_line, parse_object
from app.models.api_key import ApiKey
from app.store.schema_version import require_known_version
from app.store.transfer import Entry, Progress

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_LINE = 64 * 2**20  # bytes; a document of MongoDB has at most 16 MB, and is in the line twice
_MAX_FAULTS = 20  # that are shown


def verify_export(path: Path, progress: Progress) -> ExportEnd:
    """Read the whole file, and return its last line.

    Raises:
        CopyFailed: The file cannot be read, is not a complete export, or has lines that cannot be used.
        StoreRefused: A newer release wrote the file.
    """
    digest = hashlib.sha256()
    keys = records = 0
    faults: list[str] = []
    header = _read_export_header(path)
    for number, line, is_last in _read_numbered_lines(path):
        if is_last:
            break
        digest.update(line)
        if number > 1:
            try:
                is_key = isinstance(parse_line(line), ApiKey)
                keys, records = keys + is_key, records + (not is_key)
            except ValueError as error:
                faults.append(f"line {number}: {error}")
            progress(records, header.records)
    if faults:
        more = f"; {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise CopyFailed(f"{path} cannot be used: {'; '.join(faults[:_MAX_FAULTS])}{more}")
    end = _parse_end(path, line)
    if (end.records, end.keys, end.sha256) != (records, keys, digest.hexdigest()):
        raise CopyFailed(f"{path} is damaged: its content does not match the checksum in its last line")
    return end


def read_export(path: Path) -> Iterator[tuple[ApiKey | Entry, int]]:
    """Yield the keys and records of a file that `verify_export` has read, each with its size in bytes.

    Raises:
        CopyFailed: The file cannot be read.
    """
    for number, line, is_last in _read_numbered_lines(path):
        if number > 1 and not is_last:
            yield parse_line(line), len(line)


def _read_export_header(path: Path) -> ExportHeader:
    _, line, _ = next(_read_numbered_lines(path), (0, b"", True))
    try:
        header = ExportHeader.model_validate(parse_object(line))
    except (ValidationError, ValueError):
        raise CopyFailed(f"{path} is not an export of slurm-proxy: its first line is not a header") from None
    if header.slurm_proxy_export > FORM:
        raise CopyFailed(
            f"{path} has form {header.slurm_proxy_export} of slurm-proxy {header.release}, and this release"
            f" reads forms up to {FORM}: import it with the newer release"
        )
    require_known_version(header.schema_version, str(path))
    return header


def _parse_end(path: Path, line: bytes) -> ExportEnd:
    try:
        return ExportEnd.model_validate(parse_object(line))
    except (ValidationError, ValueError):
        raise CopyFailed(f"{path} ends too early: its last line is missing") from None


def _read_numbered_lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield each line with its number, and whether it is the last one.

    Raises:
        CopyFailed: The file cannot be read.
    """
    try:
        with _open_export(path) as stream:
            number, line = 1, stream.readline(_MAX_LINE)
            while line:
                if len(line) == _MAX_LINE:
                    raise CopyFailed(f"{path} cannot be used: line {number} is too long")
                following = stream.readline(_MAX_LINE)
                yield number, line, not following
                number, line = number + 1, following
    except EOFError:
        raise CopyFailed(f"{path} ends too early: its last line is missing") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CopyFailed(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise CopyFailed(f"{path} cannot be read: {error.strerror or error}") from error


def _open_export(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as stream:
        is_gzip = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")
