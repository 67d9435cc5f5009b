"""Validate requests: their form, what this server offers and refuses, and the permissions of the caller."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.access.authorization import Receivers, require_grant_for_task, require_scope
from app.constants import Settings
from app.errors import InvalidRequest
from app.messages.plan import Catalogue, merge_params
from app.models.caller import Caller, Scope
from app.models.catalogue_entry import CatalogueEntry
from app.models.notification_request import NotificationRequest
from app.models.task import (
    MonitorRequest,
    RunAs,
    SubmitRequest,
    Task,
    WatchedJob,
    WatchedTask,
    list_faults,
    parse_request,
)
from app.models.task_defaults import merge_defaults
from app.models.username import CONTEXT_KEY
from app.senders import SENDERS

_Request = TypeVar("_Request", bound=BaseModel)

_MAX_PARAM_BYTES = 256 * 1024  # of the parameters of all messages about one event, which are stored


class RequestValidator:
    """Validator of requests, which lists all faults of a request at once. Thread-safe."""

    def __init__(
        self,
        catalogue: Catalogue,
        refused_users: Collection[str],
        settings: Settings | None = None,
    ) -> None:
        """Create a validator.

        Args:
            catalogue: The task names that the operator offers.
            refused_users: Users that no job runs as.
            settings: Limit the parameters of messages, such as the receivers that callers may name.
        """
        self.catalogue = catalogue
        self.refused_users = refused_users
        self.username_pattern = settings.TASK_USERNAME_PATTERN if settings else None
        self._context = {
            CONTEXT_KEY: self.username_pattern,
            "catalogue": catalogue,
            "refused_users": refused_users,
            "methods": tuple(SENDERS),
            "settings": settings,
        }

    def validate_submission(self, caller: Caller, body: Mapping[str, Any]) -> Task:
        """Return the task in a body of `POST /submit`.

        Raises:
            InvalidRequest: The body has faults; the error lists them.
            Forbidden: The caller has no permission for this task.
        """
        require_scope(caller, Scope.SUBMIT)
        task = self._parse(SubmitRequest, self._add_defaults(body), "task").task
        require_grant_for_task(caller, task, self._find_receivers(task), "task")
        return task

    def validate_registration(self, caller: Caller, body: Mapping[str, Any]) -> WatchedJob:
        """Return the job in a body of `POST /monitor`.

        Raises:
            InvalidRequest: The body has faults; the error lists them.
            Forbidden: The caller has no permission for this task.
        """
        require_scope(caller, Scope.SUBMIT)
        job = self._parse(MonitorRequest, body, "monitor", "task").monitor
        require_grant_for_task(caller, job.task, self._find_receivers(job.task), "monitor.task")
        return job

    def validate_run_as(self, query: Mapping[str, str]) -> str:
        """Return the user that the query of `POST /slurm/job/submit` names.

        Raises:
            InvalidRequest: The query names no user, or a user that no job runs as.
        """
        return parse_request(RunAs, query, context=self._context).username

    def _parse(self, model: type[_Request], body: Mapping[str, Any], *path: str) -> _Request:
        faults = chain(self._find_notification_faults(body, path), self._find_parameter_faults(body, model))
        try:
            request = parse_request(model, body, context=self._context)
        except InvalidRequest as error:
            raise InvalidRequest(chain(error.faults, faults)) from None
        for fault in faults:
            raise InvalidRequest(chain([fault], faults))
        return request

    def _add_defaults(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the body with the defaults of the task's catalogue entry."""
        task, entry = self._find_entry(body)
        return body if entry is None else {**body, "task": merge_defaults(task, entry.select_defaults(task))}

    def _find_parameter_faults(self, body: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
        """Yield the faults in the parameters of a task to submit."""
        task, entry = self._find_entry(body)
        if entry is not None and model is SubmitRequest:
            yield from entry.list_parameter_faults(task.get("parameters"), "task.parameters")

    def _find_entry(self, body: Any) -> tuple[dict[str, Any], CatalogueEntry | None]:
        """Return the task in an unchecked body, and its catalogue entry if it has one."""
        task = body.get("task") if isinstance(body, dict) else None
        name = task.get("name") if isinstance(task, dict) else None
        return task or {}, self.catalogue.get(name) if isinstance(name, str) else None

    def _find_notification_faults(self, body: Any, path: Sequence[str]) -> Iterator[str]:
        """Yield the faults that the channels find in the parameters of catalogue and task together."""
        for key in path:
            body = body.get(key) if isinstance(body, dict) else None
        if not isinstance(body, dict):
            return
        try:
            given = body.get("notification", {})
            named = {name: given[name] for name in ("methods", "params") if name in given}
            wanted = NotificationRequest.model_validate(named, context=self._context)
        except (ValidationError, TypeError):
            return  # listed with the faults of the body
        merged = merge_params(self.catalogue, body.get("name"), wanted)
        where = ".".join((*path, "notification", "params"))
        for method, params in merged.items():
            yield from list_faults(SENDERS[method].Params, params, f"{where}.{method}", self._context)
        split = (SENDERS[method].split_recipients(params) for method, params in merged.items())
        kept = (params for messages in split for params in messages.values())
        if sum(len(json.dumps(one)) for one in kept) > _MAX_PARAM_BYTES:
            yield f"{where}: all messages together must not take more than {_MAX_PARAM_BYTES} bytes"

    def _find_receivers(self, task: Task | WatchedTask) -> Receivers:
        """Return the receivers of the task's messages, also by methods that are not configured."""
        found = {}
        for method, params in merge_params(self.catalogue, task.name, task.notification).items():
            sender = SENDERS[method]
            parsed = sender.Params.model_validate(params, context=self._context)
            found[method] = sender.receivers(parsed)
        return found
