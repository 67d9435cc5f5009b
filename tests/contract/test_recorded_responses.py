"""The service answers, stores and sends exactly what was recorded: status, headers, and each byte of a body.

The recordings are in `recorded_responses/`, a file for each scenario of `scenarios.py`. After an intended
change, record again, and read the difference before you commit it:

    .venv/bin/python -m tests.contract.test_recorded_responses --record
    git diff tests/contract/recorded_responses

Times near the clock of the run, generated ids, ports and folders are replaced by placeholders.
"""

import difflib
import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.contract.scenarios import SCENARIOS

_FOLDER = Path(__file__).parent / "recorded_responses"
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR")


@cache
def _recorded(scenario: str) -> dict[str, Any]:
    path = _FOLDER / f"{scenario}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


@cache
def _answered(scenario: str) -> dict[str, Any]:
    """Run a scenario and return its entries; they are the same each time."""
    with tempfile.TemporaryDirectory() as folder:
        entries = SCENARIOS[scenario](Path(folder)).entries
    read_back: dict[str, Any] = json.loads(json.dumps(entries, default=str))
    return read_back


def _lines(content: Any) -> list[str]:
    return json.dumps(content, indent=1, ensure_ascii=False).splitlines()


@pytest.mark.parametrize(
    ("scenario", "name"), [(scenario, name) for scenario in SCENARIOS for name in _recorded(scenario)]
)
def test_answer_is_the_recorded_one(scenario: str, name: str) -> None:
    answered = _answered(scenario)
    assert name in answered, "the scenario has no such entry: record again"
    before, now = _lines(_recorded(scenario)[name]), _lines(answered[name])
    if before != now:
        difference = difflib.unified_diff(before, now, "recorded", "answered", lineterm="", n=2)
        pytest.fail(f"{scenario}: {name}\n" + "\n".join(difference), pytrace=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_entry_of_a_scenario_is_recorded_in_its_order(scenario: str) -> None:
    assert list(_answered(scenario)) == list(_recorded(scenario))


def test_every_operation_of_the_openapi_document_succeeds_in_a_recording() -> None:
    """A new route is missing here until a scenario asks it."""
    paths = json.loads("".join(_recorded("documents")["GET /openapi.json"]["body"]))["paths"]
    operations = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    succeeded = {
        tuple("".join(entry["request"]).partition("?")[0].rstrip("/").split(" "))
        for scenario in SCENARIOS
        for entry in _recorded(scenario).values()
        if isinstance(entry, dict) and entry.get("status") == 200 and "request" in entry
    }
    missing = {
        (method, path)
        for method, path in operations
        if not any(asked == method and _is_at(path, where) for asked, where in succeeded)
    }
    assert missing == set()


def _is_at(template: str, path: str) -> bool:
    parts, given = template.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part.startswith("{") or part == word for part, word in zip(parts, given, strict=True)
    )


def _record() -> None:
    """Write the recordings, with the environment's settings out of the way."""
    for name in [name for name in os.environ if name not in _KEPT_VARIABLES]:
        del os.environ[name]
    _FOLDER.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        text = "\n".join(_lines(_answered(scenario))) + "\n"
        (_FOLDER / f"{scenario}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"]:
        sys.exit("usage: python -m tests.contract.test_recorded_responses --record")
    _record()
