"""Imports point one way, and each dependency has one place."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "app").rglob("*.py"))

LAYERS = {
    "app.errors": 0,
    "app.job_state": 0,
    "app.constants": 0,
    "app.clock": 0,
    "app.outages": 0,
    "app.metrics": 0,
    "app.close_matches": 0,
    "app.setting_names": 0,
    "app.setting_values": 0,
    "app.slow_patterns": 0,
    "app.processors": 0,
    "app.unwritable_file": 0,
    "app.version": 0,
    "app.environment": 1,
    "app.loops": 1,
    "app.models": 1,
    "app.messages": 2,
    "app.slurm": 3,
    "app.store": 3,
    "app.senders": 3,
    "app.demo.cluster": 3,
    "app.lifecycle": 5,
    "app.access": 4,
    "app.connections": 5,
    "app.logs": 5,
    "app.monitor": 6,
    "app.operator_view": 6,
    "app.web.openapi": 6,
    "app.builders": 6,
    "app.services": 7,
    "app.startup": 8,
    "app.web": 8,
    "app.commands": 9,
    "app.task_submission": 9,
    "app.task_callers": 9,
    "app.task_control": 9,
    "app.task_health": 9,
    "app.task_monitoring": 9,
    "app.task_notifications": 9,
    "app.task_resubmission": 9,
    "app.task_slurm_rest": 9,
    "app": 10,
    "app.gunicorn_settings": 10,
    "app.gunicorn_worker": 10,
    "app.web.dev_server": 10,
    "app.demo": 11,
}
# Within layer 0 two modules build on others.
SIDEWAYS = {
    ("app.constants", "app.errors"),
    ("app.constants", "app.setting_values"),
    ("app.setting_names", "app.errors"),
    ("app.setting_values", "app.slow_patterns"),
}
ONE_PLACE = {
    "pymongo": ["app.store.mongo"],
    "sqlite3": ["app.store.sqlite"],
    "requests": [],
    "urllib3": ["app.slurm.connection", "app.slurm.transport"],
    "certifi": ["app.slurm.transport"],
    "http.client": ["app.senders.http"],
    "smtplib": ["app.senders.email", "app.senders.smtp_session"],
    "googleapiclient": ["app.senders.gmail"],
    "google": ["app.senders.gmail"],
    "slack_sdk": ["app.senders.slack", "app.senders.slack_client"],
    "pika": ["app.senders.rabbitmq", "app.senders.amqp_connection"],
    "apprise": ["app.senders.apprise_process"],
    "jinja2": ["app.messages.rendering"],
    "jwt": ["app.slurm", "app.access.oidc", "app.demo.cluster.server"],
    "pythonjsonlogger": ["app.logs"],
    "gunicorn": ["app.gunicorn_worker"],
    "click": ["app.commands", "app.errors"],
    "prometheus_client": ["app.web.metrics_page"],
    "cachetools": ["app.lifecycle.job_readings", "app.lifecycle.present_facts", "app.slurm.state_batcher"],
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest prefix."""
    fitting = [unit for unit in LAYERS if module == unit or module.startswith(unit + ".")]
    return max(fitting, key=len)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    return tuple(_find_imports(path))


def _find_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from (f"app.{alias.name}" if base == "app" else base for alias in node.names)


def ours(imported: str) -> str | None:
    if imported.startswith("app.create_app"):
        return "app"
    return unit_of(imported) if imported == "app" or imported.startswith("app.") else None


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    unit = unit_of(name_of(path))
    for imported in imports_of(path):
        other = ours(imported)
        if other is None or other == unit or (unit, other) in SIDEWAYS:
            continue
        assert LAYERS[other] < LAYERS[unit], f"{name_of(path)} must not import {imported}"


def test_every_module_has_a_layer() -> None:
    modules = {name_of(path) for path in SOURCES}
    top = {module for module in modules if module.count(".") <= 1}
    assert set(LAYERS) <= modules
    assert top <= LAYERS.keys()


def documented_rows() -> dict[Path, int]:
    """The row of each module in the table of packages; where two rows fit, the one with the longer path."""
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    section = page.partition("\n## Packages\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = {
        pattern: row
        for row, line in enumerate(lines)
        for pattern in re.findall("`(.+?)`", line.split("|")[1])
    }
    found = {}
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        fitting = [pattern for pattern in rows if fnmatch(name, pattern + "*" * pattern.endswith("/"))]
        assert fitting, f"{name} has no row"
        found[path] = rows[max(fitting, key=len)]
    return found


def test_imports_point_downwards_in_the_documented_table() -> None:
    rows = documented_rows()
    paths = {name_of(path): path for path in SOURCES}
    upwards = [
        f"{name_of(path)} imports {imported}"
        for path in SOURCES
        for imported in imports_of(path)
        if ours(imported) and rows[path] > rows[paths.get(imported, paths["app"])]
    ]
    assert upwards == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_import_inside_a_function(path: Path) -> None:
    functions = [
        node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    inside = [
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


@pytest.mark.parametrize(("library", "places"), ONE_PLACE.items())
def test_each_service_library_has_its_place(library: str, places: list[str]) -> None:
    users = {
        name_of(path)
        for path in SOURCES
        if any(imported == library or imported.startswith(library + ".") for imported in imports_of(path))
    }
    users.discard("app.demo.tour")  # a caller, by HTTP like any other
    used = {place for place in places for user in users if user == place or user.startswith(place + ".")}
    assert used == set(places)
    assert all(any(user == place or user.startswith(place + ".") for place in places) for user in users)


def test_flask_is_known_to_the_web_layer_only() -> None:
    users = {
        name_of(path)
        for path in SOURCES
        if any(imported.split(".")[0] in {"flask", "werkzeug"} for imported in imports_of(path))
    }
    assert all(user == "app" or user.startswith(("app.task_", "app.commands.", "app.web.")) for user in users)


def test_the_environment_is_read_in_one_file() -> None:
    readers = {
        name_of(path) for path in SOURCES if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {"app.environment"}


def test_routes_are_short() -> None:
    for path in ROOT.glob("app/task_*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 8, f"{path.name}: {node.name}"


def test_every_module_of_routes_is_part_of_the_application() -> None:
    imported = set(imports_of(ROOT / "app/__init__.py"))
    assert {name_of(path) for path in ROOT.glob("app/task_*.py")} <= imported


def test_no_two_functions_share_a_name() -> None:
    places = defaultdict(set)
    for path in SOURCES:
        for node in parse(path).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].add(name_of(path))
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
