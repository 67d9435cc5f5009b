"""Read the parameters `wait` and `until` of the current request, and wait."""

import re
import time
from collections.abc import Callable, Mapping, Sequence

from flask import Response, g, request

from app.errors import InvalidRequest
from app.lifecycle.wait import RequestSlot, UnlimitedSlot
from app.models.list_answers import TaskList
from app.models.record_state import MAX_WAIT_SECONDS, RecordState, Wait, WaitCondition, states_of
from app.web.json_response import make_json_response
from app.web.request_context import get_services, read_query_lists, refuse_misspelt_parameters
from app.web.request_slots import SLOT_KEY

_NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_Query = Mapping[str, Sequence[str]]


def wait_for_task(find: Callable[[], Mapping[str, RecordState]]) -> int | None:
    """Wait if the query has `wait`; return the value of Retry-After if the request could not wait so long.

    Args:
        find: Returns the state of the record that the request is about. Its errors are raised.

    Raises:
        InvalidRequest: A parameter is wrong or misspelt.
    """
    refuse_misspelt_parameters("wait", "until")
    return _wait(find, _parse_wait(read_query_lists(), tuple(WaitCondition)))


def answer_about_batch(query: dict[str, list[str]], find: Callable[[], TaskList]) -> Response:
    """Return the response to a query, after a wait if the query has uuids and `wait`.

    Args:
        query: The query. `wait` and its `until` are taken out of it; without `wait`, `until` is a filter.
        find: Returns the tasks that meet the query without `wait`. Its errors are raised.

    Raises:
        InvalidRequest: A parameter is wrong, or there is no uuid.
    """
    retry_after = None
    if "wait" in query:
        if "uuid" not in query:
            raise InvalidRequest(["wait: needs uuid, the tasks to wait for"])
        given = {name: query.pop(name, []) for name in ("wait", "until")}
        wanted = _parse_wait(given, (WaitCondition.CHANGE, WaitCondition.END))
        retry_after = _wait(lambda: states_of(*find().tasks), wanted)
    return make_json_response(find(), retry_after)


def _wait(find: Callable[[], Mapping[str, RecordState]], wanted: Wait | None) -> int | None:
    """Wait for tasks, and give the slot of the request back meanwhile."""
    if wanted is None:
        return None
    slot: RequestSlot = request.environ.get(SLOT_KEY) or UnlimitedSlot()
    began = time.monotonic()
    try:
        return get_services().waiting.wait(find, wanted, slot)
    finally:
        g.waited = time.monotonic() - began


def _parse_wait(query: _Query, conditions: tuple[WaitCondition, ...]) -> Wait | None:
    """Return the wait that a query asks for; None without `wait`. The first of `conditions` is the default.

    Raises:
        InvalidRequest: A parameter is wrong.
    """
    faults = [f"{name}: may occur only once" for name in ("wait", "until") if len(query.get(name, ())) > 1]
    seconds, until = (next(iter(query.get(name, ())), None) for name in ("wait", "until"))
    if seconds is None:
        faults += ["until: needs wait, the number of seconds to wait"] * (until is not None)
    elif _NUMBER.fullmatch(seconds) is None or float(seconds) > MAX_WAIT_SECONDS:
        faults.append(f"wait: must be a number of seconds from 0 to {MAX_WAIT_SECONDS}")
    if until is not None and until not in conditions:
        faults.append(f"until: must be one of {', '.join(conditions)}")
    if faults:
        raise InvalidRequest(faults)
    return None if seconds is None else Wait(float(seconds), WaitCondition(until or conditions[0]))
