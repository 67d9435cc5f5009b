"""Read the parameters `wait` and `until` of the current request, and wait."""

import re
import time
from collections.abc import Callable, Mapping

from flask import g, request

from app.errors import InvalidRequest
from app.lifecycle.wait import RequestSlot, UnlimitedSlot
from app.models.record_state import MAX_WAIT_SECONDS, RecordState, Wait, WaitCondition
from app.web.request_context import get_services, refuse_misspelt_parameters
from app.web.request_slots import SLOT_KEY

_NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


def wait_for(
    find: Callable[[], Mapping[str, RecordState]],
    conditions: tuple[WaitCondition, ...] = tuple(WaitCondition),
) -> int | None:
    """Wait as the query demands; return the value of the header Retry-After, if the answer comes too early.

    The request gives its slot back meanwhile. Without `wait` in the query, this does nothing.

    Args:
        find: Returns the states of the records that the request is about. Its errors are raised.
        conditions: The values that `until` may have on this route; the first is the default.

    Raises:
        InvalidRequest: A parameter is wrong or misspelt.
    """
    if (wanted := _read_wait(conditions)) is None:
        return None
    slot: RequestSlot = request.environ.get(SLOT_KEY) or UnlimitedSlot()
    began = time.monotonic()
    try:
        return get_services().waiting.wait(find, wanted, slot)
    finally:
        g.waited = time.monotonic() - began


def _read_wait(conditions: tuple[WaitCondition, ...]) -> Wait | None:
    """Return what the query demands; None without `wait`.

    Raises:
        InvalidRequest: A parameter is wrong or misspelt.
    """
    refuse_misspelt_parameters("wait", "until")
    faults = [
        f"{name}: may occur only once" for name in ("wait", "until") if len(request.args.getlist(name)) > 1
    ]
    seconds, until = request.args.get("wait"), request.args.get("until")
    if seconds is None:
        faults += ["until: needs wait, the number of seconds to wait"] * (until is not None)
    elif _NUMBER.fullmatch(seconds) is None or float(seconds) > MAX_WAIT_SECONDS:
        faults.append(f"wait: must be a number of seconds from 0 to {MAX_WAIT_SECONDS}")
    if until is not None and until not in conditions:
        faults.append(f"until: must be one of {', '.join(conditions)}")
    if faults:
        raise InvalidRequest(faults)
    return None if seconds is None else Wait(float(seconds), WaitCondition(until or conditions[0]))
