"""Read JSON Schemas as tables for people: the page `/docs`, and the reference pages of the documentation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_LIMITS = {"minimum": "At least", "exclusiveMinimum": "More than", "maximum": "At most"}


@dataclass(frozen=True, slots=True)
class Row:
    """One field of a body, as a row of a table."""

    depth: int
    name: str
    kind: str
    is_required: bool
    words: str


class SchemaReader:
    """A reader that describes the fields of JSON Schemas in words."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        """Read `schemas`, the components of an OpenAPI document by name."""
        self._schemas = schemas

    def rows(self, schema: dict[str, Any], depth: int = 0) -> Iterator[Row]:
        """Yield the fields of an object, and those of all objects in it."""
        schema = self._resolve(schema)
        for name, field in schema.get("properties", {}).items():
            yield Row(depth, name, self.kind(field), name in schema.get("required", ()), self.rule(field))
            for choice in self._choices(field):
                for inner in self._choices(self._resolve(choice).get("items", choice)):
                    yield from self.rows(inner, depth + 1)

    def kind(self, schema: dict[str, Any]) -> str:
        """Return the type of a value, such as `list of string`."""
        return " or ".join(dict.fromkeys(self._kind(choice) for choice in self._choices(schema)))

    def rule(self, schema: dict[str, Any]) -> str:
        """Return description, choices, default and an example; limits only without a description.

        A list has the rule of its items, too.
        """
        resolved = self._resolve(schema)
        sentences = [schema.get("description", ""), resolved.get("description", "")]
        if "enum" in resolved:
            sentences.append("One of " + ", ".join(f"`{word}`" for word in resolved["enum"]) + ".")
        if "anyOf" in schema and not any("Must" in words for words in sentences):
            sentences += [self.rule(choice) for choice in schema["anyOf"]]
        if not any(sentences):
            sentences = [f"{words} {resolved[key]}." for key, words in _LIMITS.items() if key in resolved]
        for choice in self._choices(schema):
            if choice.get("type") == "array" and (rule := self.rule(choice["items"])):
                sentences.append(f"Each item: {rule}")
        if schema.get("default") not in (None, [], {}) and "$ref" not in schema:
            sentences.append(f"Default: `{json.dumps(schema['default'])}`.")
        sentences += [f"For example `{json.dumps(example)}`." for example in schema.get("examples", ())]
        return " ".join(filter(None, dict.fromkeys(sentences)))

    def _kind(self, schema: dict[str, Any]) -> str:
        resolved = self._resolve(schema)
        if resolved.get("type") == "array":
            return f"list of {self.kind(resolved['items'])}"
        kind = resolved.get("type") or ("string" if "enum" in resolved else "any JSON")
        return kind if isinstance(kind, str) else " or ".join(kind)

    def _choices(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the alternatives of a value."""
        if "anyOf" not in schema:
            return [schema]
        return [found for choice in schema["anyOf"] for found in self._choices(choice)]

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
        return found
