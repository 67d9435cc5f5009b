"""Describe the parameters and defaults of the catalogue in the schema of a task."""

from collections.abc import Iterator

from app.messages.plan import Catalogue
from app.models.catalogue_entry import CatalogueEntry
from app.models.parameter_schema import inline_definitions
from app.web.openapi.schemas import Schema, make_name_condition


def describe_catalogue_tasks(schemas: dict[str, Schema], catalogue: Catalogue) -> None:
    """Add conditions to the schema of a task for the names that have parameters or defaults."""
    task = schemas["Task"]
    task["allOf"] += _parameter_conditions(catalogue)
    for part in ("slurm", "dirs"):
        entries = {name: entry for name, entry in catalogue.items() if getattr(entry, part) is not None}
        if entries:
            task["required"].remove(part)
            unnamed = {"not": make_name_condition(entries)}
            task["allOf"].append({"if": unnamed, "then": {"required": [part]}})
            task["allOf"] += _describe_folders(schemas, entries) if part == "dirs" else []


def _parameter_conditions(catalogue: Catalogue) -> Iterator[Schema]:
    for name, entry in catalogue.items():
        if entry.parameters is not None:
            schema = inline_definitions(entry.parameters)
            is_required = bool(schema.get("required"))
            value = schema if is_required else {"anyOf": [schema, {"type": "null"}]}
            then = {"required": ["parameters"] if is_required else [], "properties": {"parameters": value}}
            yield {"if": make_name_condition([name]), "then": then}


def _describe_folders(schemas: dict[str, Schema], entries: dict[str, CatalogueEntry]) -> Iterator[Schema]:
    """Yield which folders a task must give; the schema `Dirs` then requires none."""
    required = schemas["Dirs"].pop("required")
    whole = {"properties": {"dirs": {"required": required}}}
    yield {"if": {"not": make_name_condition(entries)}, "then": whole}
    for name, entry in entries.items():
        if missing := [key for key in required if not (entry.dirs or {}).get(key)]:
            then = {"required": ["dirs"], "properties": {"dirs": {"required": missing}}}
            yield {"if": make_name_condition([name]), "then": then}
