"""Parse the option `dependency` as sbatch reads it, in which tasks may stand by their uuids.

`<kind>:<id>[+minutes][:<id>[+minutes]...]`, several of them separated by `,` (all of them) or `?` (any of
them), and `singleton`. An id of digits, or of digits, `_` and digits or `*`, is a job id. Any other id is a
uuid. A uuid may have colons, but none of its beginnings up to a colon is a job id: of several readings, the
longest uuid that exists counts.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from app.close_matches import suggest_similar_word

KINDS = ("after", "afterany", "afterburstbuffer", "aftercorr", "afternotok", "afterok", "expand")
MAX_CANDIDATES = 2000  # texts that may be uuids, in one dependency
_MAX_COLONS = 1000
_MAX_UUID_LENGTH = 128
_JOB_ID = re.compile(r"[0-9]+(_([0-9]+|\*))?")
_PART = re.compile(r"([^+]*)(?:\+0*([0-9]{1,7}))?")  # 19 years; Slurm keeps seconds in 32 bits


class DependencyFault(Exception):
    """Exception: a dependency with uuids cannot be read. The message begins with "must" or "names"."""


@dataclass(frozen=True, slots=True)
class Term:
    """A job or a task that another one waits for.

    Attributes:
        kind: One of KINDS.
        id: A job id, or a uuid.
        is_uuid: Whether `id` is a uuid.
        minutes: How long after the start of that job, with the kind `after`.
    """

    kind: str
    id: str
    is_uuid: bool
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Dependency:
    """A dependency: its terms, other words such as `singleton`, and whether one of them suffices."""

    parts: tuple[Term | str, ...]
    is_any: bool

    @property
    def tasks(self) -> list[Term]:
        """Return the terms with uuids."""
        return [part for part in self.parts if isinstance(part, Term) and part.is_uuid]

    def render(self) -> str:
        """Return the text for Slurm."""
        return ("?" if self.is_any else ",").join(map(_render_part, self.parts))


def list_candidates(text: str) -> list[str]:
    """Return every part of the text that may be a uuid; an empty list if the text has job ids only.

    Raises:
        DependencyFault: There are too many.
    """
    found: dict[str, None] = {}
    if text.count(":") > _MAX_COLONS:
        raise DependencyFault("names too many tasks")
    for kind, ids in _split_dependency(text):
        for index in range(0 if kind is None else len(ids)):
            found |= dict.fromkeys(_list_uuids_at(ids, index))
        if len(found) > MAX_CANDIDATES:
            raise DependencyFault("names too many tasks")
    return list(found)


def parse_dependency(text: str, known: Collection[str]) -> Dependency:
    """Return a dependency that has candidates for uuids; `known`: those that are uuids.

    Raises:
        DependencyFault: The text has both separators, an unknown kind, or a colon without an id.
    """
    if "," in text and "?" in text:
        raise DependencyFault("must not have both , (all) and ? (any)")
    parts: list[Term | str] = []
    for kind, ids in _split_dependency(text):
        parts += ids if kind is None else _read_terms(kind, ids, known)
    return Dependency(tuple(parts), is_any="?" in text)


def _split_dependency(text: str) -> Iterator[tuple[str | None, list[str]]]:
    """Yield each kind with the texts between its colons; None with a word that has no colon."""
    for item in re.split("[,?]", text):
        kind, colon, ids = item.strip().partition(":")
        yield (kind, ids.split(":")) if colon else (None, [kind])


def _list_uuids_at(ids: Sequence[str], index: int) -> Iterator[str]:
    """Yield the texts that begin at this place and may be uuids, the shortest first."""
    if _JOB_ID.fullmatch(ids[index].partition("+")[0]):
        return
    for end in range(index + 1, len(ids) + 1):
        text, plus, _ = ":".join(ids[index:end]).partition("+")
        if len(text) > _MAX_UUID_LENGTH:
            return
        if text:
            yield text
        if plus:
            return


def _read_terms(word: str, ids: Sequence[str], known: Collection[str]) -> Iterator[Term]:
    kind = word.lower()
    if kind not in KINDS:
        meant = suggest_similar_word(kind, KINDS, f"it is one of {', '.join(KINDS)}")
        raise DependencyFault(f"must have a kind before each colon, not {word[:60]}; {meant}")
    index, minutes = 0, None
    while index < len(ids):
        found = [text for text in _list_uuids_at(ids, index) if text in known]
        count = found[-1].count(":") + 1 if found else 1
        match = _PART.fullmatch(":".join(ids[index : index + count]))
        if match is None or not match[1]:
            words = "must have a job or a task after each colon, and minutes after each +, at most 9999999"
            raise DependencyFault(words)
        minutes = int(match[2]) if match[2] else minutes  # Slurm applies the minutes to what follows, too
        yield Term(kind, match[1], not _JOB_ID.fullmatch(match[1]), minutes)
        index += count


def _render_part(part: Term | str) -> str:
    if isinstance(part, str):
        return part
    return f"{part.kind}:{part.id}" + (f"+{part.minutes}" if part.minutes is not None else "")
