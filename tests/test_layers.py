"""Imports point one way, and each dependency has one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "app").rglob("*.py"))

LAYERS = {
    "app.errors": 0,
    "app.job_state": 0,
    "app.constants": 0,
    "app.clock": 0,
    "app.outages": 0,
    "app.near_words": 0,
    "app.slow_patterns": 0,
    "app.unwritable_file": 0,
    "app.environment": 1,
    "app.models": 1,
    "app.messages": 2,
    "app.slurm": 3,
    "app.store": 3,
    "app.senders": 3,
    "app.lifecycle": 4,
    "app.access": 4,
    "app.connections": 5,
    "app.logs": 5,
    "app.monitor": 5,
    "app.openapi": 5,
    "app.services": 6,
    "app.web": 6,
    "app.startup": 7,
    "app.api_docs": 7,
    "app.auth": 7,
    "app.commands": 7,
    "app.http_errors": 7,
    "app.request_slots": 7,
    "app.task_submission": 7,
    "app.task_monitoring": 7,
    "app.task_notifications": 7,
    "app.task_slurm_rest": 7,
    "app": 8,
    "app.gunicorn_settings": 8,
    "app.gunicorn_worker": 9,
    "app.serving": 9,
    "app.demo": 10,
}
# Within layers 0 and 7 a few modules build on each other.
SIDEWAYS = {
    ("app.api_docs", "app.auth"),
    ("app.commands", "app.startup"),
    ("app.constants", "app.errors"),
    ("app.constants", "app.slow_patterns"),
    ("app.task_submission", "app.auth"),
    ("app.task_monitoring", "app.auth"),
    ("app.task_slurm_rest", "app.auth"),
    ("app.task_notifications", "app.auth"),
}
ONE_PLACE = {
    "pymongo": ["app.store.mongo"],
    "sqlite3": ["app.store.sqlite"],
    "requests": ["app.slurm.connection"],
    "http.client": ["app.senders.http"],
    "smtplib": ["app.senders.email", "app.senders.smtp_session"],
    "googleapiclient": ["app.senders.gmail"],
    "google": ["app.senders.gmail"],
    "slack_sdk": ["app.senders.slack"],
    "pika": ["app.senders.rabbitmq"],
    "apprise": ["app.senders.apprise_process"],
    "jinja2": ["app.messages.layout"],
    "jwt": ["app.slurm", "app.access.oidc"],
    "pythonjsonlogger": ["app.logs"],
    "gunicorn": ["app.gunicorn_worker"],
    "click": ["app.commands", "app.errors"],
    "cachetools": ["app.lifecycle.looking_up"],
}
WEB = {
    "app",
    "app.api_docs",
    "app.auth",
    "app.http_errors",
    "app.request_slots",
    "app.serving",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to: the longest prefix."""
    fitting = [unit for unit in LAYERS if module == unit or module.startswith(unit + ".")]
    return max(fitting, key=len)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
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
    top = {name_of(path) for path in SOURCES if path.parent == ROOT / "app"}
    packages = {name_of(path) for path in SOURCES if path.name == "__init__.py"}
    assert {unit_of(module) for module in top} <= LAYERS.keys()
    assert {unit for unit in LAYERS if unit not in top | packages} == set()
    assert {module for module in top if module not in LAYERS} == set()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_import_inside_a_function(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
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
    users.discard("app.demo")  # a caller, by HTTP like any other
    used = {place for place in places for user in users if user == place or user.startswith(place + ".")}
    assert used == set(places)
    assert all(any(user == place or user.startswith(place + ".") for place in places) for user in users)


def test_flask_is_known_to_the_web_layer_only() -> None:
    users = {
        name_of(path)
        for path in SOURCES
        if any(imported.split(".")[0] in {"flask", "werkzeug"} for imported in imports_of(path))
    }
    assert all(user in WEB or user.startswith(("app.task_", "app.commands.", "app.web.")) for user in users)


def test_the_environment_is_read_in_one_file() -> None:
    readers = {
        name_of(path) for path in SOURCES if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {"app.environment"}


def test_routes_are_short() -> None:
    for path in ROOT.glob("app/task_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 8, f"{path.name}: {node.name}"
