"""A real disk that is full, and a real limit for the size of files."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.real import RealPartMissing

_SIZE = 2_000_000  # bytes


class SmallDisk:
    """A file system of two megabytes at `path`; enter it to have it mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "SmallDisk":
        """Mount the file system.

        Raises:
            RealPartMissing: This user cannot mount.
        """
        self.path.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(self.path)]
        try:
            subprocess.run(argv, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RealPartMissing(f"a file system cannot be mounted here: {error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room on the file system."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        yield
        filler.unlink()


@contextmanager
def no_larger_files(folder: Path) -> Iterator[None]:
    """Let no file of this process grow larger than the largest one in `folder`."""
    largest = max(file.stat().st_size for file in folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
