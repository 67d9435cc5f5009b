"""Plans by which MongoDB finds the records that meet a filter, in the order of their creation.

Each plan reads one index, or two for a field that comes from Slurm or else from the task. Conditions that the
index does not cover are checked document by document.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from app.job_state import JobState
from app.models.task_filter import WILDCARD, TaskFilter
from app.store.mongo.list_indexes import BY_CREATION, ListIndex, list_index
from app.store.mongo.older_server import OF_OLDER_SERVER, list_stored_forms
from app.store.mongo.types import Document

_MAX_SORTED_RANGES = 200  # MongoDB merges no more ranges of an index in the order of its last fields
_MAX_LEGS = 8  # of one plan
_MAX_PLANS = 3
_JOB_FIELDS = {  # the field from Slurm, and the field from the task
    "job_name": ("job.name", "task.slurm.job_name"),
    "partition": ("job.partition", "task.slurm.partition"),
}
_FIELDS = {
    "username": "slurm_username",
    "state": "slurm_job_state",
    "name": "task.name",
    "caller": "caller",
    "resubmitted_from": "resubmitted_from",
}
# The conditions that an index covers; usually the first ones leave the fewest records.
_COVERED = (
    ("resubmitted_from",),
    ("username", "state"),
    ("job_name",),
    ("username",),
    ("state",),
    ("caller",),
    ("partition",),
    ("name",),
)


@dataclass(frozen=True, slots=True)
class IndexScan:
    """The part of a plan that reads one index: the entries with `key`, of which those with `check` count."""

    index: ListIndex | None
    key: Document
    check: Document


Plan = Sequence[IndexScan]
_Keys = dict[str, list[object]]  # the stored values that an index can be searched for, by field of the filter


class PlanBuilder:
    """Builder of the plans for one filter."""

    def __init__(
        self, wanted: TaskFilter, usernames: Collection[str] | None, unknown_states: Sequence[object]
    ) -> None:
        """Translate the conditions.

        Args:
            wanted: The filter.
            usernames: The users whose records may be found; None for all users.
            unknown_states: The stored values that are read as UNKNOWN.
        """
        self._wanted = wanted
        self._usernames = usernames
        self._keys = self._list_keys(unknown_states)
        self._checks = self._build_checks()

    @property
    def everything(self) -> IndexScan:
        """Return the part that reads all records in the order of their creation, and checks each of them."""
        return IndexScan(BY_CREATION, {}, match_all(self._checks.values()))

    def build(self) -> list[Plan]:
        """Return plans that find the same records, at least one; usually the first is the fastest."""
        if uuids := self._wanted.uuid:
            either = [{"uuid": {"$in": list(uuids)}}, {"task.uuid": {"$in": list_stored_forms(uuids)}}]
            return [[IndexScan(None, {"$or": either}, match_all(self._checks.values()))]]
        covered = [fields for fields in _COVERED if self._keys.keys() >= set(fields)]
        if ("username", "state") in covered:
            covered = [fields for fields in covered if fields not in (("username",), ("state",))]
        plans = [list(self._build_scans(fields)) for fields in covered]
        usable = [plan for plan in plans if len(plan) <= _MAX_LEGS]
        return list(usable[:_MAX_PLANS]) or [[self.everything]]

    def _list_keys(self, unknown_states: Sequence[object]) -> _Keys:
        keys: _Keys = {}
        for field in (*_FIELDS, *_JOB_FIELDS):
            if words := getattr(self._wanted, field):
                keys[field] = list(dict.fromkeys(words))
        if (names := self._usernames) is not None:
            readable = frozenset(names)
            keys["username"] = [name for name in keys.get("username", names) if name in readable]
        if (states := self._wanted.job_states) is not None:
            values: list[object] = [state.value for state in sorted(states)]
            if JobState.UNKNOWN in states:
                values += [value for value in unknown_states if value not in (None, JobState.UNKNOWN.value)]
            keys["state"] = [*values, None] if self._list_stateless() else values
        if self._wanted.job_name_patterns:
            del keys["job_name"]
        return keys

    def _list_stateless(self) -> list[Document]:
        """Return the conditions by which a record without a state may meet the condition on the state."""
        found: list[Document] = []
        if self._wanted.includes_reserved:
            of_this_service = {"notifications": {"$exists": True}, "taken_over_at": {"$exists": False}}
            found.append({"submission_error": None, **of_this_service})
        if self._wanted.includes_unsubmitted:
            found.append({"submission_error": {"$ne": None}})
        if JobState.UNKNOWN in (self._wanted.job_states or ()):
            found += OF_OLDER_SERVER
        return found

    def _build_checks(self) -> dict[str, Document]:
        """Return the whole condition for each field that the filter has."""
        checks: dict[str, Document] = {}
        for field, values in self._keys.items():
            if field in _FIELDS:
                checks[field] = {_FIELDS[field]: {"$in": values}}
            else:
                checks[field] = _is_either(field, {"$in": values})
        if self._wanted.job_name_patterns:
            checks["job_name"] = _is_either("job_name", _to_regex(self._wanted.job_name))
        if None in self._keys.get("state", ()):
            has_state: Document = {"slurm_job_state": {"$ne": None}}
            checks["state"] = {"$and": [checks["state"], {"$or": [has_state, *self._list_stateless()]}]}
        return checks

    def _build_scans(self, fields: Sequence[str]) -> Iterator[IndexScan]:
        """Yield the parts of the plan that reads the index of these fields."""
        checks = {name: check for name, check in self._checks.items() if name not in fields}
        if (field := fields[0]) in _JOB_FIELDS:
            of_job, of_task = _JOB_FIELDS[field]
            one_of = {"$in": self._keys[field]}
            yield IndexScan(list_index(of_job), {of_job: one_of}, match_all(checks.values()))
            without_job: Document = {of_job: None}
            yield IndexScan(
                list_index(of_task), {of_task: one_of}, match_all([without_job, *checks.values()])
            )
            return
        for keys, check in self._split_by_state(fields):
            field, *others = fields
            of_others = {_FIELDS[one]: {"$in": keys[one]} for one in others}
            size = max(1, _MAX_SORTED_RANGES // prod(len(keys[one]) for one in others))
            for start in range(0, len(keys[field]), size):
                key = {_FIELDS[field]: {"$in": keys[field][start : start + size]}, **of_others}
                yield IndexScan(list_index(*key), key, match_all([check, *checks.values()]))

    def _split_by_state(self, fields: Sequence[str]) -> Iterator[tuple[_Keys, Document]]:
        """Yield the keys with states, which need no check, and those of the few records without a state."""
        states = self._keys.get("state", [])
        if "state" not in fields or None not in states:
            yield self._keys, {}
            return
        yield {**self._keys, "state": [state for state in states if state is not None]}, {}
        yield {**self._keys, "state": [None]}, {"$or": self._list_stateless()}


def match_all(conditions: Collection[Document]) -> Document:
    """Return a condition that is met by the documents that meet all conditions."""
    parts = [condition for condition in conditions if condition]
    return parts[0] if len(parts) == 1 else {"$and": parts} if parts else {}


def _is_either(field: str, condition: object) -> Document:
    """Return the condition on the field from Slurm, or else on the field from the task."""
    of_job, of_task = _JOB_FIELDS[field]
    return {"$or": [{of_job: condition}, {of_job: None, of_task: condition}]}


def _to_regex(patterns: Iterable[str]) -> "re.Pattern[str]":
    """Return the regular expression for texts that fit one of the patterns with `*`.

    It never goes back to a `*` that has found its end, so that no pattern takes long.
    """
    return re.compile(rf"\A(?:{'|'.join(map(_pattern_to_regex, patterns))})(?!.)", re.DOTALL)


def _pattern_to_regex(pattern: str) -> str:
    first, *others = map(re.escape, pattern.split(WILDCARD))
    if not others:
        return first
    *middle, last = others
    return f"{first}{''.join(f'(?>.*?{part})' for part in middle)}.*{last}"
