"""The indexes of lists: each ends in the order of creation."""

from collections.abc import Sequence

from pymongo import ASCENDING, IndexModel

from app.store.mongo.take_over import NEWEST_FIRST

ListIndex = Sequence[tuple[str, int]]

# In the other direction than the partial index of take_over.py, of which it must not be a second form.
BY_CREATION: ListIndex = [(field, ASCENDING) for field, _ in NEWEST_FIRST]
_FOR_ALL_DOCUMENTS = (
    ("slurm_job_state",),
    ("slurm_username", "slurm_job_state"),
    ("slurm_username",),
    ("task.name",),
)
_WHERE_PRESENT = (
    "caller",
    "resubmitted_from",
    "job.name",
    "task.slurm.job_name",
    "job.partition",
    "task.slurm.partition",
)


def list_index(*fields: str) -> ListIndex:
    """Return the keys of the index that finds documents by these fields."""
    return [*((field, ASCENDING) for field in fields), *NEWEST_FIRST]


LIST_INDEXES = (
    IndexModel(BY_CREATION),
    *(IndexModel(list_index(*fields)) for fields in _FOR_ALL_DOCUMENTS),
    *(
        IndexModel(list_index(field), partialFilterExpression={field: {"$exists": True}})
        for field in _WHERE_PRESENT
    ),
)
