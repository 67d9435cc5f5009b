"""Choose one processor for each worker process."""

import os
from collections import Counter
from collections.abc import Collection, Iterable


def choose_processor(allowed: Collection[int], taken: Iterable[int], first: int = 0) -> int:
    """Return the allowed processor that the fewest workers have.

    Args:
        allowed: The numbers of the processors that this process may use; at least one.
        taken: The processors of the other workers.
        first: Which of several equally used processors to prefer: any number, taken modulo the number of
            processors. Servers on the same host pass different numbers, so that they begin with different
            processors.
    """
    counts = Counter(taken)
    ordered = sorted(allowed)
    start = first % len(ordered)
    return min(ordered[start:] + ordered[:start], key=lambda processor: counts[processor])


def list_allowed_processors() -> set[int]:
    """Return the processors that this process may use; none if the system cannot tell or set them."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def pin_to_processor(processor: int) -> OSError | None:
    """Have this thread, and those that it starts, use one processor only.

    Return why that failed: the host may forbid it, or may just have taken the processor away.
    """
    try:
        os.sched_setaffinity(0, {processor})
    except OSError as error:
        return error
    return None
