"""The JSON Schema of a catalogue entry's parameters: check the schema itself at the start.

The schema is JSON Schema 2020-12, without what could take long or reach outside of it: references lead to
`$defs` of the same schema, and patterns are quick. See `parameter_faults.py` for values.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

from app.models.parameter_faults import compile_pattern, join_path, list_value_faults
from app.slow_patterns import is_slow_pattern

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = re.compile(r"#/\$defs/([^/~%]+)")
_MAX_SHOWN_LENGTH = 200  # characters in an error
_ONE_SCHEMA = (
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
)
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS_BY_NAME = ("$defs", "dependentSchemas", "patternProperties", "properties")
_REFUSED = (
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$vocabulary",
    "unevaluatedItems",
    "unevaluatedProperties",
)

Schema = dict[str, Any]


def complete_schema(schema: Schema) -> Schema:
    """Return the schema with its implied keywords.

    The parameters are an object, without further keys unless the schema says otherwise, and a property with a
    default need not be given.
    """
    is_open = "additionalProperties" in schema or "patternProperties" in schema
    closed = {} if is_open else {"additionalProperties": False}
    return {"type": "object", **schema, **closed}


def list_required(schema: Schema) -> list[str]:
    """Return the properties that must be given: those in `required` without a default."""
    return [name for name in schema.get("required", ()) if name not in list_defaults(schema)]


def inline_definitions(schema: Schema) -> Schema:
    """Return a schema without references, for a document with definitions of its own.

    Its `required` has only what must be given.
    """
    inlined: Schema = _inline(schema, schema.get("$defs", {}))
    return {**inlined, "required": list_required(schema)}


def find_schema_fault(schema: Schema) -> str | None:
    """Return the first fault of a schema of parameters; None for a valid one."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{join_path('', error.absolute_path)}: {error.message[:_MAX_SHOWN_LENGTH]}".lstrip(".: ")
    if schema.get("$schema", _DIALECT) != _DIALECT:
        return f"$schema must be {_DIALECT}, or be left out"
    if schema.get("type", "object") != "object":
        return 'type must be "object"'
    for part in _walk(schema):
        if (fault := _find_part_fault(part, schema.get("$defs", {}))) is not None:
            return fault
    if _has_cycle(schema.get("$defs", {})):
        return "$ref must not lead back to itself"
    return _find_default_fault(schema)


def list_defaults(schema: Schema) -> dict[str, Any]:
    """Return the defaults of the properties, by name."""
    properties = schema.get("properties", {}).items()
    return {
        name: part["default"] for name, part in properties if isinstance(part, dict) and "default" in part
    }


def _inline(part: object, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inline(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    own = {key: _inline(value, definitions) for key, value in part.items() if key not in ("$defs", "$schema")}
    reference = own.get("$ref")
    if not isinstance(reference, str):  # a property may have this name
        return own
    del own["$ref"]
    return {"allOf": [_inline(definitions[_definition_name(reference)], definitions), own]}


def _definition_name(reference: str) -> str:
    """Return the name in `#/$defs/<name>`; an empty one for any other reference."""
    match = _REFERENCE.fullmatch(reference)
    return match[1] if match else ""


def _walk(schema: object) -> Iterator[Schema]:
    """Yield a schema and all schemas within it."""
    if not isinstance(schema, dict):  # true or false
        return
    yield schema
    inner = [schema[name] for name in _ONE_SCHEMA if name in schema]
    inner += [item for name in _LISTS_OF_SCHEMAS for item in schema.get(name, ())]
    inner += [item for name in _SCHEMAS_BY_NAME for item in schema.get(name, {}).values()]
    for item in inner:
        yield from _walk(item)


def _find_part_fault(part: Schema, definitions: Mapping[str, Any]) -> str | None:
    for name in _REFUSED:
        if name in part:
            return f"{name} is not supported"
    if "$ref" in part and _definition_name(part["$ref"]) not in definitions:
        return f'$ref must be "#/$defs/" and a name in $defs, not "{part["$ref"][:_MAX_SHOWN_LENGTH]}"'
    for pattern in (*([part["pattern"]] if "pattern" in part else ()), *part.get("patternProperties", ())):
        if (fault := _find_pattern_fault(pattern)) is not None:
            return fault
    return None


def _find_pattern_fault(pattern: str) -> str | None:
    """Return the fault of a pattern, which may match anywhere in a text; None for a valid one."""
    try:
        compile_pattern(pattern)
        is_slow = is_slow_pattern(rf"[\s\S]*?(?:{pattern})[\s\S]*")
    except re.error as error:
        return f'the pattern "{pattern[:_MAX_SHOWN_LENGTH]}" cannot be used: {error}'
    return f'the pattern "{pattern[:_MAX_SHOWN_LENGTH]}" could take hours for some texts' if is_slow else None


def _has_cycle(definitions: Mapping[str, Any]) -> bool:
    """Return whether a definition refers to itself, directly or by others."""
    references = {
        name: {_definition_name(part["$ref"]) for part in _walk(schema) if "$ref" in part}
        for name, schema in definitions.items()
    }
    while leaves := [name for name, names in references.items() if not names & references.keys()]:
        for name in leaves:
            del references[name]
    return bool(references)


def _find_default_fault(schema: Schema) -> str | None:
    for name, value in list_defaults(schema).items():
        part = {**schema["properties"][name], "$defs": schema.get("$defs", {})}
        for fault in list_value_faults(part, value, f"properties.{name}.default"):
            return fault
    return None
