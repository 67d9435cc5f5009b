"""Slurm's `%` patterns in the names of output files."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

PATTERN_LETTERS = "jxuAaN"  # the patterns that every release expands in the same way, besides %%
_PATTERN = re.compile(rf"%(?P<width>[0-9]*)(?P<letter>[{PATTERN_LETTERS}])|%%")
_PERCENT = re.compile(rf"{_PATTERN.pattern}|(?P<unknown>%[0-9]*.?)")
_MAX_WIDTH = 10  # Slurm pads no further
NO_ARRAY_TASK = "4294967294"  # what Slurm writes for %a in a job that is no array


@dataclass(frozen=True, slots=True)
class FilePattern:
    """A folder, and the name of a file in it. Only the name may hold patterns."""

    folder: str
    name: str

    @property
    def letters(self) -> set[str]:
        """Return the letters of the patterns in the name."""
        return {match["letter"] for match in _PATTERN.finditer(self.name)} - {None}

    def to_slurm(self) -> str:
        """Return the path for Slurm to expand."""
        return f"{self.folder.replace('%', '%%').rstrip('/')}/{self.name}"

    def expand_path(self, values: Mapping[str, str]) -> str:
        """Return the path with each letter replaced by its value.

        If a value is missing, the path stays a pattern in Slurm's notation.
        """
        if self.letters <= values.keys():
            return f"{self.folder.rstrip('/')}/{expand(self.name, pad_values(values))}"
        return expand(self.to_slurm(), pad_values(values, percent="%%"))


def expand(name: str, value: Callable[[str, int], str | None], literal: Callable[[str], str] = str) -> str:
    """Return `name` with each pattern replaced by its value.

    Args:
        name: The name of a file.
        value: Returns the value of a pattern, by its letter and its width; None keeps the pattern. The letter
            of `%%` is `%`. The width is the zero-padding of a number, such as 3 in `%3a`, else 0.
        literal: Is applied to the text between the patterns.
    """
    parts, end = [], 0
    for match in _PATTERN.finditer(name):
        parts.append(literal(name[end : match.start()]))
        letter = match["letter"] or "%"
        width = min(int(match["width"] or 0), _MAX_WIDTH) if letter in "jAa" else 0
        known = value(letter, width)
        parts.append(literal(match[0]) if known is None else known)
        end = match.end()
    return "".join([*parts, literal(name[end:])])


def pad_values(values: Mapping[str, str], percent: str = "%") -> Callable[[str, int], str | None]:
    """Return a function for `expand` that pads these values with zeros."""
    known = {**values, "%": percent}
    return lambda letter, width: known[letter].zfill(width) if letter in known else None


def find_unknown_pattern(name: str) -> str | None:
    """Return the first pattern in `name` that releases expand differently, or None."""
    return next((match["unknown"] for match in _PERCENT.finditer(name) if match["unknown"]), None)


def find_common_path(paths: Collection[str]) -> str | None:
    """Return the path that all tasks of an array share, else the folder of all paths; None without paths."""
    different = set(paths)
    if len(different) < 2:
        return next(iter(different), None)
    shared = []
    for parts in zip(*(path.split("/")[:-1] for path in different), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join([*shared, ""])
