"""Read and write the task indices of a job array; in a bit mask, bit n stands for task n."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?")
_SPEC_RANGE = re.compile(r"0*(\d{1,7})(?:-0*(\d{1,7})(?::(\d{1,7}))?)?\Z")
_MAX_INDEX = 4_000_000  # the largest MaxArraySize that Slurm accepts
_MAX_LISTED_RANGES = 100
_MAX_COUNTED = 100_000  # tasks of ranges that overlap


def indices_to_mask(indices: Iterable[int]) -> int:
    """Return the mask of these indices, without those that Slurm cannot have."""
    valid = [index for index in indices if 0 <= index <= _MAX_INDEX]
    bits = bytearray(max(valid, default=0) // 8 + 1)
    for index in valid:
        bits[index // 8] |= 1 << index % 8
    return int.from_bytes(bits, "little")


def parse_index_list(text: str) -> int:
    """Return the mask of a list such as "0-9:2,12%3", the form of slurmctld's `array_task_string`.

    Parts that cannot be read are left out: slurmctld ends a long list with "...".
    """
    mask = 0
    for part in text.partition("%")[0].split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is not None:
            mask |= _mask_of_range(int(match[1]), int(match[2] or match[1]), int(match[3] or 1))
    return mask


def parse_hex_mask(text: str) -> int:
    """Return the mask of a text such as "0x3FC", the form of slurmdbd's `array.task`; else 0."""
    try:
        return int(text, 16) & (2 << _MAX_INDEX) - 1 if text.startswith("0x") else 0
    except ValueError:
        return 0


def format_index_list(mask: int) -> str:
    """Return the indices as text, such as "2,7-9"; a very long list ends with "…"."""
    ranges = list(islice(_ranges(mask), _MAX_LISTED_RANGES + 1))
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    parts[_MAX_LISTED_RANGES:] = ["…"] * (len(parts) > _MAX_LISTED_RANGES)
    return ",".join(parts)


def count_array_tasks(spec: str) -> int | None:
    """Return how many tasks an `--array` such as "0-15:4,20%2" has; None for a text that sbatch refuses."""
    parts = []
    for part in spec.partition("%")[0].split(","):
        match = _SPEC_RANGE.match(part.strip())
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if step == 0 or max(first, last) > _MAX_INDEX:
            return None
        parts.append(range(first, last + 1, step))
    parts.sort(key=lambda part: part.start)
    total = sum(map(len, parts))
    if all(before.stop <= after.start for before, after in pairwise(parts)):
        return total
    return len(set().union(*parts)) if total <= _MAX_COUNTED else None


def _mask_of_range(first: int, last: int, step: int) -> int:
    if last > _MAX_INDEX or step == 0 or last < first:
        return 0
    if step == 1:
        return (1 << last - first + 1) - 1 << first
    return indices_to_mask(range(first, last + 1, step))


def _ranges(mask: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last index of each run of tasks."""
    first = 0
    while mask:
        zeros = (mask & -mask).bit_length() - 1
        mask >>= zeros
        ones = (~mask & mask + 1).bit_length() - 1
        yield first + zeros, first + zeros + ones - 1
        mask >>= ones
        first += zeros + ones
