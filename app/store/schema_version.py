"""The version of a store's form, so that no release uses a store that it does not understand.

A start writes the version into the store. A release refuses a store of a higher version. Stores of earlier
releases, which wrote no version, and those of the older server count as version 1.

`SCHEMA_VERSION` grows by one with each release after which an earlier release must not use the store: if it
would misread a record, or write one that the newer release misreads. A further column, field, index or
collection that earlier releases ignore needs no new version, so that going back stays possible.
"""

from app.errors import StoreRefused
from app.version import read_version

SCHEMA_VERSION = 2
UNVERSIONED = 1  # a store that has no version


def require_known_version(version: int, subject: str = "the store") -> None:
    """Check that this release understands a store, or a file that comes from one.

    Raises:
        StoreRefused: A newer release wrote it.
    """
    if version > SCHEMA_VERSION:
        raise StoreRefused(
            f"{subject} has schema version {version}, and slurm-proxy {read_version()} knows versions up to"
            f" {SCHEMA_VERSION}: run the newer release again, or restore a backup from before the upgrade"
        )
