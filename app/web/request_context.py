"""Give routes the caller, the query and the body of the current request, the services and the settings."""

from typing import Any

from flask import current_app, g, request

from app.close_matches import find_similar_word
from app.constants import Settings
from app.errors import InvalidRequest, UnsupportedEncoding
from app.models.bulk_cancellation import CancelledTasks
from app.models.caller import Caller
from app.models.json_body import parse_json_object
from app.services import Services

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def get_services() -> Services:
    """Return the services of the application."""
    services: Services = current_app.extensions["slurm_proxy"]
    return services


def get_settings() -> Settings:
    """Return the settings of the application."""
    settings: Settings = current_app.config["SLURM_PROXY_SETTINGS"]
    return settings


def get_caller() -> Caller:
    """Return the caller of the current request."""
    caller: Caller = g.caller
    return caller


def read_body() -> dict[str, Any]:
    """Return the JSON object in the body, and keep the object for the request log.

    Raises:
        InvalidRequest: The body is not a JSON object, or has values that cannot be stored.
        UnsupportedEncoding: The body has a content encoding, such as gzip.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding(
            f"Content-Encoding: {encoding[:60]} is not supported; send the body without it"
        )
    g.body = parse_json_object(request.get_data())
    return g.body  # type: ignore[no-any-return]


def read_optional_body() -> dict[str, Any]:
    """Return what `read_body` returns, or an empty object for a request without a body.

    Raises:
        InvalidRequest: There is a body that is not a JSON object, or has values that cannot be stored.
        UnsupportedEncoding: The body has a content encoding, such as gzip.
    """
    return read_body() if request.get_data() else {}


def read_dry_run() -> bool:
    """Return whether the query has `dry_run=true`, and keep that for the audit trail.

    Raises:
        InvalidRequest: The value is neither true nor false, or the parameter is misspelt or occurs twice.
    """
    refuse_misspelt_parameters("dry_run")
    given = request.args.getlist("dry_run") or ["false"]
    if len(given) > 1 or given[0] not in _FLAGS:
        raise InvalidRequest(["dry_run: must be true or false, and occur only once"])
    g.is_dry_run = _FLAGS[given[0]]
    return _FLAGS[given[0]]


def refuse_misspelt_parameters(*known: str) -> None:
    """Check that no parameter of the query is a misspelt one of `known`; other parameters are ignored.

    Raises:
        InvalidRequest: A parameter is misspelt.
    """
    for name in request.args:
        if name not in known and (meant := find_similar_word(name.lower(), known)):
            raise InvalidRequest([f"{name}: is not known here; did you mean {meant}?"])


def read_only_dry_run() -> bool:
    """Return whether the query has `dry_run=true`; refuse every other parameter, such as a misplaced filter.

    Raises:
        InvalidRequest: As of `read_dry_run`, or the query has another parameter.
    """
    is_dry_run = read_dry_run()
    read_query("dry_run")
    return is_dry_run


def refuse_parameters() -> None:
    """Check that neither query nor body has a parameter, such as a `dry_run` of another route.

    Raises:
        InvalidRequest: There is a parameter, or the body is not a JSON object.
    """
    read_query()
    data = request.get_data()
    faults = [f"{name}: is not known here" for name in (parse_json_object(data) if data else ())]
    if faults:
        raise InvalidRequest(faults)


def read_query_lists() -> dict[str, list[str]]:
    """Return the values of each parameter of the query."""
    return request.args.to_dict(flat=False)


def keep_cancelled_tasks(answer: CancelledTasks) -> CancelledTasks:
    """Keep the outcome for each task for the audit trail, and return the answer."""
    g.is_dry_run = answer.dry_run
    g.cancelled_tasks = [] if answer.dry_run else answer.tasks
    return answer


def read_query(*known: str) -> dict[str, str]:
    """Return the parameters of the query; `known`: the parameters of the route.

    Raises:
        InvalidRequest: A parameter is unknown; it may be a misspelt limit.
    """
    faults = [f"{name}: is not known here" for name in request.args if name not in known]
    if faults:
        raise InvalidRequest(faults)
    return request.args.to_dict()
