"""Build the JSON Schemas of requests and answers from the models.

A model does not know what depends on the settings of a server: the task names, the refused users, the
channels. These are added here.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from app.messages.plan import Catalogue
from app.models.bulk_cancellation import CancelRequest
from app.models.notification_request import METHOD_ALIASES, NotificationRequest
from app.models.resubmission import ResubmitRequest
from app.models.rules import NO_NUL, RULE
from app.models.task import MonitorRequest, SubmitRequest
from app.senders import SENDERS

Schema = dict[str, Any]

REF = "#/components/schemas/"
_VALUE: Schema = {"$ref": f"{REF}JsonValue"}
# An object with any keys of the caller's choice.
CALLER_KEYS: Schema = {"propertyNames": {"pattern": NO_NUL}, "additionalProperties": _VALUE}
_SPELLINGS = {**{method: method for method in SENDERS}, **METHOD_ALIASES}
# A task with `argv`, which has neither `cmd` nor `params`.
_ARGV: Schema = {"required": ["argv"], "properties": {"argv": {"type": "array"}}}


class _Generator(GenerateJsonSchema):
    """The generator of pydantic, without a title for each field."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def build_schemas(models: Collection[type[BaseModel]]) -> dict[str, Schema]:
    """Return the schemas of `models`, and of all models in their fields, by name."""
    _, found = models_json_schema(
        [(model, "validation") for model in models],
        ref_template=REF + "{model}",
        schema_generator=_Generator,
    )
    schemas: dict[str, Schema] = found["$defs"]
    rules_to_descriptions(schemas)
    return schemas


def build_request_schemas(catalogue: Catalogue, refused_users: Collection[str]) -> dict[str, Schema]:
    """Return the schemas of all request bodies, by name.

    A body is valid if and only if the service accepts it, as far as JSON Schema can express the rules.
    """
    params = {method: sender.Params for method, sender in SENDERS.items()}
    bodies = (SubmitRequest, MonitorRequest, ResubmitRequest, CancelRequest)
    schemas = build_schemas([*bodies, *dict.fromkeys(params.values())])
    schemas["JsonValue"] = _build_json_value_schema()
    _allow_caller_keys(schemas)
    schemas["ResubmitRequest"]["properties"]["task"] |= CALLER_KEYS
    for condition in schemas["TaskFilter"]["properties"].values():
        condition.pop("default")  # a condition that is left out has no value
    needs = {model: _pop_requirements(schemas[model.__name__]) for model in dict.fromkeys(params.values())}
    conditions = list(
        _params_conditions(catalogue, {method: needs[model] for method, model in params.items()})
    )
    _describe_methods(schemas["NotificationRequest"]["properties"], params)
    task = schemas["Task"]
    task["properties"]["name"]["enum"] = list(catalogue)
    for schema in (task, schemas["WatchedTask"]):
        schema["properties"]["username"]["not"] = {"enum": sorted(refused_users)}
    names = ", ".join(f"`{name}`" for name, entry in catalogue.items() if entry.requires_command)
    for field in ("cmd", "params") if names else ():
        task["properties"][field]["description"] += f" Required for {names}, unless `argv` is given."
    task["properties"]["parameters"] |= _VALUE
    task["allOf"] = [*_command_conditions(catalogue), *conditions]
    schemas["WatchedTask"]["allOf"] = conditions
    return schemas


def rules_to_descriptions(node: object) -> None:
    """Append the rule of each field to its description, everywhere in a schema."""
    if isinstance(node, list):
        for item in node:
            rules_to_descriptions(item)
    if isinstance(node, dict):
        for item in node.values():
            rules_to_descriptions(item)
        if (rule := node.pop(RULE, None)) is not None:
            node["description"] = " ".join(filter(None, [node.get("description"), f"Must {rule}."]))


def _build_json_value_schema() -> Schema:
    """Return the schema of any JSON that can be kept: app/models/json_body.py.

    Generators of clients do not read conditions, so the value has any type for them. They refuse a union that
    contains itself, and guess a type where keywords of one type stand beside no type.
    """
    numbers = {"minimum": -(2**63), "maximum": 2**63 - 1}
    others = _if_of_type("array", {"items": _VALUE}, numbers)
    return {
        "description": "Any JSON value. Texts have no NUL characters, and integers fit into 64 bits.",
        **_if_of_type("string", {"pattern": NO_NUL}, _if_of_type("object", CALLER_KEYS, others)),
    }


def _if_of_type(name: str, then: Schema, otherwise: Schema) -> Schema:
    return {"if": {"type": name}, "then": then, "else": otherwise}


def _describe_methods(fields: Schema, params: Mapping[str, type[BaseModel]]) -> None:
    """Describe the methods of a notification and the parameters of each; an alias excludes its method."""
    fields["methods"]["items"] = {"enum": list(_SPELLINGS)}
    fields["methods"]["not"] = {
        "anyOf": [
            {"allOf": [{"contains": {"const": word}} for word in names]} for names in METHOD_ALIASES.items()
        ]
    }
    fields["params"] = {
        "type": "object",
        "description": "The parameters of each method, such as the receiver and the text.",
        "not": {"anyOf": [{"required": list(names)} for names in METHOD_ALIASES.items()]},
        "properties": {word: {"$ref": REF + params[method].__name__} for word, method in _SPELLINGS.items()},
        "additionalProperties": False,
    }


def _allow_caller_keys(schemas: dict[str, Schema]) -> None:
    """Describe the keys and values of each object that takes any keys."""
    for schema in schemas.values():
        if schema.get("additionalProperties") is True:
            schema |= CALLER_KEYS


def _pop_requirements(schema: Schema) -> Schema:
    """Remove and return the requirements in the schema of a method's parameters.

    They apply only where the method is used, and the catalogue may fulfil them.
    """
    for name in schema.get("required", ()):
        words = schema["properties"][name].get("description", "")
        schema["properties"][name]["description"] = f"Required where the method is used. {words}".strip()
    return {name: schema.pop(name) for name in ("required", "anyOf") if name in schema}


def _command_conditions(catalogue: Catalogue) -> Iterator[Schema]:
    """Yield which task names require a command, and that `argv` excludes `cmd` and `params`."""
    for name, entry in catalogue.items():
        if entry.requires_command:
            given = {"cmd": {"type": "string"}, "params": {"type": "array"}}
            words = {"required": list(given), "properties": given}
            yield {"if": make_name_condition([name]), "then": {"anyOf": [words, _ARGV]}}
    without = {"properties": {name: {"type": "null"} for name in ("cmd", "params")}}
    yield {"if": _ARGV, "then": without}


def _params_conditions(catalogue: Catalogue, needs: Mapping[str, Schema]) -> Iterator[Schema]:
    """Yield for each task name the requirements on `notification.params` that the catalogue leaves open."""
    own = {name: entry.notification for name, entry in catalogue.items() if entry.notification.params}
    general = list(_unmet_requirements(NotificationRequest(), needs))
    yield {"if": {"not": make_name_condition(own)}, "then": {"allOf": general}}
    for name, notification in own.items():
        then = {"allOf": list(_unmet_requirements(notification, needs))}
        yield {"if": make_name_condition([name]), "then": then}


def _unmet_requirements(own: NotificationRequest, needs: Mapping[str, Schema]) -> Iterator[Schema]:
    """Yield the requirements of each method in use that `own`, from the catalogue, leaves open."""
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
        then = _property("notification", _property("params", params))
        used = _property("notification", _property("methods", {"type": "array", "contains": {"enum": words}}))
        yield then if method in own.methods else {"if": used, "then": then}


def make_name_condition(names: Collection[str]) -> Schema:
    """Return a schema that matches the tasks with these names."""
    return _property("name", {"enum": list(names)})


def _property(name: str, schema: Schema) -> Schema:
    return {"required": [name], "properties": {name: schema}}
