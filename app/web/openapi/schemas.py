"""JSON Schemas of the requests: those of the models that check them, for one server's catalogue and channels.

What only a server knows (task names, users it refuses, channels) is no part of a model, and is added here.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from app.messages.plan import Catalogue
from app.models.notification_request import METHOD_ALIASES, NotificationRequest
from app.models.rules import NO_NUL, RULE
from app.models.task import MonitorRequest, SubmitRequest
from app.senders import SENDERS
from app.web.openapi.option_descriptions import OPTION_DESCRIPTIONS

Schema = dict[str, Any]

REF = "#/components/schemas/"
_VALUE: Schema = {"$ref": f"{REF}JsonValue"}
# Keys of the caller's own.
KEPT: Schema = {"propertyNames": {"pattern": NO_NUL}, "additionalProperties": _VALUE}
_SPELLINGS = {**{method: method for method in SENDERS}, **METHOD_ALIASES}


# A task with `argv`, which has neither `cmd` nor `params`.
_ARGV: Schema = {"required": ["argv"], "properties": {"argv": {"type": "array"}}}


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas_of(models: Collection[type[BaseModel]]) -> dict[str, Schema]:
    """The schemas of `models` and of all that they hold, by name."""
    _, found = models_json_schema(
        [(model, "validation") for model in models],
        ref_template=REF + "{model}",
        schema_generator=_Generator,
    )
    schemas: dict[str, Schema] = found["$defs"]
    tell_rules(schemas)
    return schemas


def request_schemas(catalogue: Catalogue, refused_users: Collection[str]) -> dict[str, Schema]:
    """Return the schemas of the requests.

    What fits is accepted and what does not fit is refused, as far as JSON Schema can express it.
    """
    params = {method: sender.Params for method, sender in SENDERS.items()}
    schemas = schemas_of([SubmitRequest, MonitorRequest, *dict.fromkeys(params.values())])
    schemas["JsonValue"] = _json_value()
    _describe_options(schemas["SlurmOptions"])
    _say_what_is_kept(schemas)
    needs = {model: _taken_out(schemas[model.__name__]) for model in dict.fromkeys(params.values())}
    conditions = list(_conditions(catalogue, {method: needs[model] for method, model in params.items()}))
    wish, task = schemas["NotificationRequest"]["properties"], schemas["Task"]
    wish["methods"]["items"] = {"enum": list(_SPELLINGS)}
    wish["methods"]["not"] = {
        "anyOf": [
            {"allOf": [{"contains": {"const": word}} for word in names]} for names in METHOD_ALIASES.items()
        ]
    }
    wish["params"] = {
        "type": "object",
        "description": "For each method an object.",
        "not": {"anyOf": [{"required": list(names)} for names in METHOD_ALIASES.items()]},
        "properties": {word: {"$ref": REF + params[method].__name__} for word, method in _SPELLINGS.items()},
        "additionalProperties": False,
    }
    task["properties"]["name"]["enum"] = list(catalogue)
    for schema in (task, schemas["WatchedTask"]):
        schema["properties"]["username"]["not"] = {"enum": sorted(refused_users)}
    needy = ", ".join(f"`{name}`" for name, entry in catalogue.items() if entry.requires_command)
    for name in ("cmd", "params"):
        field = task["properties"][name]
        field["description"] += f" Required for {needy}, unless `argv` is given." if needy else ""
    task["allOf"] = [*_commands(catalogue), *conditions]
    schemas["WatchedTask"]["allOf"] = conditions
    return schemas


def tell_rules(node: object) -> None:
    """The words of `must` become descriptions."""
    if isinstance(node, list):
        for item in node:
            tell_rules(item)
    if isinstance(node, dict):
        for item in node.values():
            tell_rules(item)
        if (rule := node.pop(RULE, None)) is not None:
            node["description"] = " ".join(filter(None, [node.get("description"), f"Must {rule}."]))


def _json_value() -> Schema:
    """Return the schema of any JSON that can be kept: app/models/json_body.py.

    Generators of clients do not read conditions, so the value has any type for them. They refuse a union that
    contains itself, and guess a type where keywords of one type stand beside no type.
    """
    numbers = {"minimum": -(2**63), "maximum": 2**63 - 1}
    others = _if_of_type("array", {"items": _VALUE}, numbers)
    return {
        "description": "Any JSON without NUL characters, whole numbers of 64 bits.",
        **_if_of_type("string", {"pattern": NO_NUL}, _if_of_type("object", KEPT, others)),
    }


def _if_of_type(name: str, then: Schema, otherwise: Schema) -> Schema:
    return {"if": {"type": name}, "then": then, "else": otherwise}


def _describe_options(options: Schema) -> None:
    for name, (meaning, example) in OPTION_DESCRIPTIONS.items():
        field = options["properties"][name]
        field["description"] = " ".join(filter(None, [meaning, field.get("description")]))
        field["examples"] = [example]


def _say_what_is_kept(schemas: dict[str, Schema]) -> None:
    for schema in schemas.values():
        if schema.get("additionalProperties") is True:
            schema |= KEPT


def _taken_out(schema: Schema) -> Schema:
    """What a method cannot do without: it may come from the catalogue, or the method may not be used."""
    for name in schema.get("required", ()):
        words = schema["properties"][name].get("description", "")
        schema["properties"][name]["description"] = f"Required where the method is used. {words}".strip()
    return {name: schema.pop(name) for name in ("required", "anyOf") if name in schema}


def _commands(catalogue: Catalogue) -> Iterator[Schema]:
    for name, entry in catalogue.items():
        if entry.requires_command:
            given = {"cmd": {"type": "string"}, "params": {"type": "array"}}
            words = {"required": list(given), "properties": given}
            yield {"if": _named([name]), "then": {"anyOf": [words, _ARGV]}}
    without = {"properties": {name: {"type": "null"} for name in ("cmd", "params")}}
    yield {"if": _ARGV, "then": without}


def _conditions(catalogue: Catalogue, needs: Mapping[str, Schema]) -> Iterator[Schema]:
    """What `notification.params` must hold beside what the catalogue does."""
    own = {name: entry.notification for name, entry in catalogue.items() if entry.notification.params}
    yield {"if": {"not": _named(own)}, "then": {"allOf": list(_complete(NotificationRequest(), needs))}}
    for name, wish in own.items():
        yield {"if": _named([name]), "then": {"allOf": list(_complete(wish, needs))}}


def _complete(own: NotificationRequest, needs: Mapping[str, Schema]) -> Iterator[Schema]:
    """What each method needs where it is used, less what the catalogue has: `own`."""
    yield {}
    for method, need in needs.items():
        given = own.params.get(method, {})
        required = [name for name in need.get("required", ()) if name not in given]
        if not required and (given or "anyOf" not in need):
            continue
        words = [word for word, meant in _SPELLINGS.items() if meant == method]
        complete = {"required": required} if required else {"anyOf": need["anyOf"]}
        params = {
            "anyOf": [{"required": [word]} for word in words],
            "properties": dict.fromkeys(words, complete),
        }
        then = _at("notification", _at("params", params))
        used = _at("notification", _at("methods", {"type": "array", "contains": {"enum": words}}))
        yield then if method in own.methods else {"if": used, "then": then}


def _named(names: Collection[str]) -> Schema:
    return _at("name", {"enum": list(names)})


def _at(name: str, schema: Schema) -> Schema:
    return {"required": [name], "properties": {name: schema}}
