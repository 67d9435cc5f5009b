"""The description of one operation."""

from dataclasses import dataclass

from app.errors import SlurmProxyError
from app.models.answers import SlurmAnswer
from app.models.caller import Scope


@dataclass(frozen=True, slots=True)
class Operation:
    """A route with a method, as the OpenAPI document describes it.

    Attributes:
        id: The name of the function in generated clients; it never changes.
        answer: A model, the media type of an answer that is not JSON, or `object` for any JSON object.
        errors: The errors of the use case. Those of HTTP, of authentication and of a server that fails are
            added to each operation.
        parameters: The parameters of the query and the headers.
        body: As `answer`; None for a request without a body.
        other_answers: Further models that an answer may have.
        not_ready_answer: The model of an answer with the status 503 that is not an error.
        scopes: The scopes that a caller needs. Without any, the route needs no authentication, unless
            `is_for_every_caller` is set.
        is_body_optional: Whether the body may be left out.
        other_scope: A scope that suffices, too.
        is_for_every_caller: Whether the route is for each authenticated caller, whatever the scopes.
    """

    id: str
    method: str
    path: str
    answer: type | str
    errors: tuple[type[SlurmProxyError], ...] = ()
    parameters: tuple[str, ...] = ()
    body: type | None = None
    is_body_optional: bool = False
    other_answers: tuple[type, ...] = ()
    not_ready_answer: type | None = None
    scopes: tuple[Scope, ...] = ()
    other_scope: Scope | None = None
    is_for_every_caller: bool = False

    @property
    def is_public(self) -> bool:
        """Return whether the route needs no authentication."""
        return not self.scopes and not self.is_for_every_caller

    @property
    def passes_on(self) -> bool:
        """Return whether the answer is slurmrestd's own, under its own status."""
        return self.answer is SlurmAnswer
