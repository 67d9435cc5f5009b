"""JSON Merge Patch, as RFC 7396 describes it."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.models.merge_patch import apply_merge_patch

# RFC 7396, appendix A: the target, the patch, the result.
EXAMPLES = """
{"a":"b"}          {"a":"c"}                      {"a":"c"}
{"a":"b"}          {"b":"c"}                      {"a":"b","b":"c"}
{"a":"b"}          {"a":null}                     {}
{"a":"b","b":"c"}  {"a":null}                     {"b":"c"}
{"a":["b"]}        {"a":"c"}                      {"a":"c"}
{"a":"c"}          {"a":["b"]}                    {"a":["b"]}
{"a":{"b":"c"}}    {"a":{"b":"d","c":null}}       {"a":{"b":"d"}}
{"a":[{"b":"c"}]}  {"a":[1]}                      {"a":[1]}
["a","b"]          ["c","d"]                      ["c","d"]
{"a":"b"}          ["c"]                          ["c"]
{"a":"foo"}        null                           null
{"a":"foo"}        "bar"                          "bar"
{"e":null}         {"a":1}                        {"e":null,"a":1}
[1,2]              {"a":"b","c":null}             {"a":"b"}
{}                 {"a":{"bb":{"ccc":null}}}      {"a":{"bb":{}}}
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)
ON_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("line", EXAMPLES.strip().splitlines())
def test_a_merge_patch_gives_the_results_in_the_rfc(line: str) -> None:
    target, patch, result = map(json.loads, line.split())
    assert apply_merge_patch(target, patch) == result


def make_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return a patch that makes `after` of `before`, for values without null in objects."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        is_nested = isinstance(old, dict) and isinstance(value, dict)
        patch[key] = make_patch(old, value) if is_nested else value  # type: ignore[arg-type]
    return patch


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return value


@ON_ANY_MACHINE
@given(before=OBJECTS, after=OBJECTS)
def test_a_patch_of_all_differences_leads_to_the_other_object(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    wanted = without_null(after)
    assert apply_merge_patch(before, make_patch(before, wanted)) == wanted


@ON_ANY_MACHINE
@given(target=JSON, patch=JSON)
def test_a_patch_changes_neither_of_its_arguments(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    once = apply_merge_patch(target, patch)
    assert (target, patch) == before
    assert apply_merge_patch(once, patch) == once


def test_keys_keep_their_order() -> None:
    merged = apply_merge_patch({"b": 1, "a": {"y": 1, "x": 2}}, {"c": 3, "a": {"z": 4, "y": 5}, "b": 6})
    assert json.dumps(merged) == '{"b": 6, "a": {"y": 5, "x": 2, "z": 4}, "c": 3}'
