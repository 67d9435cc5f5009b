"""Generate the parts of the reference pages that come from the code.

`python -m docs.generate_reference` writes the parts between the markers `<!-- generated: name -->` and
`<!-- end -->` of the pages below again. A test fails while a page differs from what this module generates.
"""

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
from click.testing import CliRunner

from app import create_app
from app.constants import Settings
from app.models.caller import Scope
from app.web.openapi.operations import OPERATIONS
from app.web.openapi.schema_reader import SchemaReader

REFERENCE = Path(__file__).parent / "reference"
_MARKED = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.S)
# Settings without which the application is not built. Nothing connects to these addresses.
_PLACEHOLDERS: dict[str, Any] = {
    "SLURM_REST_HOST": "http://127.0.0.1:9",
    "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0",
    "ACCESS_METHODS": "keys",
    "MONGODB_URI": None,
    "TASK_METADATA": {},
    "TASK_USERNAME_PATTERN": None,
}
_SETTING_GROUPS = {
    "The development server": "FLASK_",
    "gunicorn and its clients": "GUNICORN_ CLIENT_ LIMIT_CONNECTIONS",
    "Logs": "LOG_ AUDIT_",
    "Access": "ACCESS_",
    "Identity provider": "OIDC_",
    "Limits for callers": "LIMIT_",
    "Slurm": "SLURM_",
    "MongoDB": "MONGODB_",
    "SQLite": "SQLITE_",
    "Poller": "MONITOR_",
    "Tasks": "TASK_",
    "Mail server": "NOTIFICATIONS_SMTP_",
    "Gmail": "NOTIFICATIONS_GMAIL_",
    "Slack": "NOTIFICATIONS_SLACK_",
    "RabbitMQ": "NOTIFICATIONS_RABBITMQ_",
    "Webhooks": "NOTIFICATIONS_WEBHOOK_",
    "Apprise": "NOTIFICATIONS_APPRISE_",
    "All notifications": "NOTIFICATIONS_",
}
_ANSWER_PARTS = {
    "Fields of `slurm`": "SlurmFacts",
    "Fields of `monitor`": "Record",
    "Fields of a notification": "ShownNotification",
}
_COMMANDS = (
    "check",
    "keys create",
    "keys list",
    "keys revoke",
    "records adopt",
    "records backup",
    "records export",
    "records import",
)
_COMMON_STATUSES = ("401", "403", "405", "413", "415", "429", "500")  # described once, above the routes


class Source(NamedTuple):
    """The sources of the generated pages."""

    api: dict[str, Any]
    commands: click.Group

    @property
    def schemas(self) -> dict[str, Any]:
        """Return the schemas of the OpenAPI document by their names."""
        return cast(dict[str, Any], self.api["components"]["schemas"])


def read_source() -> Source:
    """Build the application with placeholders, and return its OpenAPI document and its commands."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app({**_PLACEHOLDERS, "SQLITE_PATH": Path(folder) / "none.sqlite3"})
        return Source(cast(dict[str, Any], app.test_client().get("/openapi.json").json), app.cli)


def settings(source: Source) -> Iterator[str]:
    """Yield a table of settings for each group, in the order of `.env.example`.

    Raises:
        ValueError: A setting has no group.
    """
    groups: dict[str, list[Iterable[str]]] = {}
    # The longest prefix names the group: NOTIFICATIONS_SMTP_ comes before NOTIFICATIONS_.
    for name, field in Settings.model_fields.items():
        prefixes = [(word, title) for title, words in _SETTING_GROUPS.items() for word in words.split()]
        fitting = [(word, title) for word, title in prefixes if name.startswith(word)]
        if not fitting:
            raise ValueError(f"{name} has no group in _SETTING_GROUPS of docs/generate_reference.py")
        title = max(fitting)[1]
        default = _default_text(field.get_default(call_default_factory=True))
        groups.setdefault(title, []).append((f"`{name}`", default, field.description or ""))
    for title in _SETTING_GROUPS:
        yield f"## {title}\n"
        yield from table(("setting", "default", "meaning"), groups[title])
        yield ""


def task_fields(source: Source) -> Iterator[str]:
    """Yield the table of the fields of a task, without those of `slurm` and `notification`."""
    parent = ""
    rows = []
    for row in SchemaReader(source.schemas).rows(source.schemas["Task"]):
        if row.depth == 0:
            parent = row.name
        if row.depth == 0 or (row.depth == 1 and parent == "dirs"):
            name = row.name if row.depth == 0 else f"{parent}.{row.name}"
            words = row.words.split("\n\n")[0]
            rows.append((f"`{name}`", row.kind, "yes" if row.is_required else "", words))
    yield from table(("field", "type", "required", "meaning"), rows)


def slurm_options(source: Source) -> Iterator[str]:
    """Yield the table of the options of a job."""
    rows = SchemaReader(source.schemas).rows(source.schemas["SlurmOptions"])
    yield from table(("option", "type", "meaning"), ((f"`{row.name}`", row.kind, row.words) for row in rows))


def notification_params(source: Source) -> Iterator[str]:
    """Yield the table of the parameters of each method."""
    method = ""
    cells = []
    rows = SchemaReader(source.schemas).rows(source.schemas["NotificationRequest"])
    for row in rows:
        if row.depth == 1:
            method = row.name
        if row.depth == 2 and method != "rabbithq":  # another spelling of rabbitmq
            cells.append((f"`{method}`", f"`{row.name}`", row.kind, row.words))
    yield from table(("method", "parameter", "type", "meaning"), cells)


def route_table(source: Source) -> Iterator[str]:
    """Yield the table of all routes with their scopes."""
    rows = []
    for operation in OPERATIONS:
        described = source.api["paths"][operation.path][operation.method.lower()]
        scopes = ", ".join(f"`{scope}`" for scope in operation.scopes)
        if operation.other_scope is not None:
            scopes += f" or `{operation.other_scope}`"
        if operation.is_for_every_caller:
            scopes = "any"
        rows.append((f"`{operation.method} {operation.path}`", scopes, described["summary"]))
    yield from table(("route", "scope", "what it does"), rows)


def answer_fields(source: Source) -> Iterator[str]:
    """Yield a table of the fields of each part of a GET's answer."""
    reader = SchemaReader(source.schemas)
    for title, name in _ANSWER_PARTS.items():
        yield f"### {title}\n"
        rows = [row for row in reader.rows(source.schemas[name]) if row.depth == 0]
        yield from table(
            ("field", "type", "meaning"), ((f"`{row.name}`", row.kind, row.words) for row in rows)
        )
        yield ""


def caller_routes(source: Source) -> Iterator[str]:
    """Yield the routes for callers, each with its parameters, its answer and its errors."""
    yield from _routes(source, is_admin=False)


def operator_routes(source: Source) -> Iterator[str]:
    """Yield the routes for operators, each with its parameters, its answer and its errors."""
    yield from _routes(source, is_admin=True)


def common_errors(source: Source) -> Iterator[str]:
    """Yield the table of the errors that any route can have."""
    found: dict[tuple[str, str], str] = {}
    for methods in source.api["paths"].values():
        for operation in methods.values():
            for status in _COMMON_STATUSES:
                for code, words in _codes(operation, status):
                    found.setdefault((status, code), words)
    rows = ((status, f"`{code}`", words) for (status, code), words in sorted(found.items()))
    yield from table(("status", "code", "meaning"), rows)


def commands(source: Source) -> Iterator[str]:
    """Yield what `--help` prints for each command."""
    for path in _COMMANDS:
        arguments = [*path.split(), "--help"]
        run = CliRunner(env={"COLUMNS": "80"}).invoke(source.commands, arguments, "flask --app app")
        shown = run.output.replace("Usage: app", "Usage: flask --app app")
        yield f"## flask --app app {path}\n\n```text\n{shown.rstrip()}\n```\n"


PARTS: dict[str, Callable[[Source], Iterator[str]]] = {
    "settings": settings,
    "task-fields": task_fields,
    "slurm-options": slurm_options,
    "notification-params": notification_params,
    "route-table": route_table,
    "answer-fields": answer_fields,
    "caller-routes": caller_routes,
    "operator-routes": operator_routes,
    "common-errors": common_errors,
    "commands": commands,
}


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    titles = list(titles)
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"


def generated_page(text: str, source: Source) -> str:
    """Return a page with its generated parts written again."""

    def fill(match: re.Match[str]) -> str:
        content = "\n".join(PARTS[match[2]](source)).strip()
        return f"{match[1]}\n{content}\n\n{match[3]}"

    return _MARKED.sub(fill, text)


def _routes(source: Source, *, is_admin: bool) -> Iterator[str]:
    reader = SchemaReader(source.schemas)
    for operation in OPERATIONS:
        if (operation.scopes == (Scope.ADMIN,)) is not is_admin:
            continue
        described = source.api["paths"][operation.path][operation.method.lower()]
        scopes = " and ".join(f"`{scope}`" for scope in operation.scopes)
        if operation.other_scope is not None:
            scopes += f" or `{operation.other_scope}`"
        yield f"### `{operation.method} {operation.path}`\n"
        yield f"{described['summary']}\n"
        if not scopes:
            scopes = "none; the route is open to everyone" if operation.is_public else "any"
        yield f"- Scope: {scopes}. Operation: `{operation.id}`."
        for parameter in described.get("parameters", ()):
            words = reader.rule(parameter["schema"]) or "A text."
            yield f"- `{parameter['name']}` ({parameter['in']}): {words}"
        yield from _body(described)
        yield f"- Answer: {_answer(described, source.schemas)}"
        errors = [
            f"{status} `{code}`"
            for status in described["responses"]
            if status not in ("200", "default", *_COMMON_STATUSES)
            for code, _ in _codes(described, status)
            if code != "not_found"
        ]
        if errors:
            yield f"- Errors: {', '.join(errors)}."
        yield ""


def _body(described: dict[str, Any]) -> Iterator[str]:
    if "requestBody" in described:
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        name = _schema_name(schema)
        yield f"- Body: `{name}`." if name else "- Body: any JSON object."


def _answer(described: dict[str, Any], schemas: dict[str, Any]) -> str:
    ((media, content),) = described["responses"]["200"]["content"].items()
    names = [_schema_name(schema) for schema in content["schema"].get("anyOf", [content["schema"]])]
    if media != "application/json":
        return f"`{media}`."
    if not all(name and schemas[name].get("properties") for name in names):
        return "a JSON object."
    fields = {name: ", ".join(f"`{field}`" for field in schemas[name]["properties"]) for name in names}
    return "; or ".join(f"`{name}`, with {fields[name]}" for name in names) + "."


def _schema_name(schema: dict[str, Any]) -> str:
    return cast(str, schema.get("$ref", "")).rpartition("/")[2]


def _codes(described: dict[str, Any], status: str) -> Iterator[tuple[str, str]]:
    """Yield the codes that an error of this status may have, with their meaning."""
    words = described["responses"].get(status, {}).get("description", "")
    yield from re.findall(r"^`(\w+)`: (.*)$", words, re.M)


def _default_text(default: object) -> str:
    if default is None or default in ((), {}, []):
        return ""
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        default = str(default).lower()
    return f"`{default:.0f}`" if isinstance(default, float) else f"`{default}`"


def main() -> None:
    """Write the generated parts of all reference pages."""
    source = read_source()
    for page in sorted(REFERENCE.glob("*.md")):
        page.write_text(generated_page(page.read_text(), source))


if __name__ == "__main__":
    main()
