"""Describe a complete poll: when it began, and which jobs it did not cover."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from app.models.record import OpenJob

_MAX_UNCOVERED = 100  # jobs


@dataclass(frozen=True, slots=True)
class CompletePoll:
    """Poll whose changes are recorded: each record has its job's state as the poll began, or a later one.

    A complete poll covers each job whose record was open when it began, but no arrays: the state that is
    listed for the id of an array is that of some of its tasks.

    Attributes:
        began: The store's time at which the poll began.
        uncovered: The ids of the jobs, few at most, whose records may be behind.
    """

    began: datetime
    uncovered: frozenset[int]

    @classmethod
    def make(
        cls, began: datetime, open_jobs: Iterable[OpenJob], uncovered: Collection[int]
    ) -> "CompletePoll | None":
        """Return the complete poll of these jobs; None if too many of them are uncovered."""
        open_ids = {record.slurm_job_id for record in open_jobs} if uncovered else set()
        left = open_ids.intersection(uncovered)
        return cls(began, frozenset(left)) if len(left) <= _MAX_UNCOVERED else None
