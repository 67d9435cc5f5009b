"""Compare answers with the OpenAPI document: status, media type, headers and body."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    """As ECMA-262 has it: the end is the end, and not before a last line break."""
    if isinstance(value, str) and not re.search(re.sub(r"\$(?=\)|$)", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern}")


_Validator = validators.extend(Draft202012Validator, {"pattern": _pattern})


class Contract:
    """`document`: as it is served. Answers may not hold more fields than it names."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._components = document["components"]
        self._closed = copy.deepcopy(self._components)
        for schema in self._closed["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self._templates = {
            re.compile(re.sub(r"{\w+}", "[^/]+", path.replace(".", r"\."))): path
            for path in sorted(document["paths"], key=lambda path: "{" in path)
        }
        self._validators: dict[str, Any] = {}

    @property
    def operations(self) -> set[tuple[str, str]]:
        return {
            (method.upper(), path) for path, methods in self.document["paths"].items() for method in methods
        }

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the operation of the document for a request to this path."""
        plain = path.removesuffix("/")
        for pattern, template in self._templates.items():
            if pattern.fullmatch(plain):
                found: dict[str, Any] | None = self.document["paths"][template].get(method.lower())
                return found
        return None

    def check(self, method: str, path: str, response: Any) -> None:
        """Raise an AssertionError with the differences between the answer and the document."""
        operation = self.operation(method, path)
        where = f"{method} {path[:100]}: {response.status_code} {response.get_data(as_text=True)[:500]}"
        if operation is None:  # what HTTP itself demands
            assert response.status_code in (404, 405), where
            promised = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
        else:
            responses = operation["responses"]
            promised = responses.get(str(response.status_code), responses.get("default"))
            assert promised is not None, where
        media = response.content_type.partition(";")[0]
        assert media in promised["content"], where
        required = {name for name, header in promised.get("headers", {}).items() if header["required"]}
        assert required <= set(response.headers.keys()), where
        if media == "application/json":
            schema = promised["content"][media]["schema"]
            faults = [fault.message for fault in self.answer(schema).iter_errors(response.json)]
            assert not faults, f"{where}: {faults}"

    def request(self, method: str, path: str) -> Any:
        """The validator of the bodies of requests."""
        operation = self.operation(method, path)
        assert operation is not None
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return self._validator(schema, self._components, "request")

    def answer(self, schema: dict[str, Any]) -> Any:
        """Return the validator of answers with this schema."""
        return self._validator(schema, self._closed, "answer")

    def _validator(self, schema: dict[str, Any], components: Any, kind: str) -> Any:
        key = f"{kind} {schema}"
        if key not in self._validators:
            whole = {**schema, "components": components}
            self._validators[key] = _Validator(whole, format_checker=FormatChecker())
        return self._validators[key]
