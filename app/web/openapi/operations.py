"""All operations of the service: one entry for each route and method.

A new route takes these steps. Tests fail while one of steps 1 to 8 is missing.

1. Write a use case in `app/lifecycle/`, and add it to `Services` in `app/services.py`. It checks the caller's
   grants with `app/access/authorization.py`. A module of routes for operators checks the scope before each
   request instead: `blueprint.before_request(make_scope_check(Scope.ADMIN))`.
2. Describe its answer as a model in `app/models/answers.py`, and a body as a model in `app/models/task.py`.
3. Write the function of the route in `app/task_*.py`, with at most eight lines. Its docstring becomes the
   summary in the OpenAPI document. List a new module in `app/__init__.py`, and its layer in
   `tests/unit/test_layers.py`. A route that anyone may call needs the decorator `allow_unauthenticated` of
   `app/web/auth.py`.
4. Add the entry in `task_operations.py` or `service_operations.py`. Its `id` is the function's name in
   camelCase. It lists the scopes that a caller needs, and each error that the use case raises. Leave out
   Forbidden: each operation with scopes has it.
5. Describe each new parameter in `parameters.py`. A new error needs a class in `app/errors.py`, an example in
   `examples.py`, and its code in `docs/reference/errors.md`.
6. Add a column to the access matrix in `tests/unit/access/test_request_guard.py`: a name in `ROUTES`, a
   request in `requests_about_a_job`, and a status in each line of `EXPECTED`, or in `FOR_EVERYONE`.
7. Add a request for each answer to `tests/contract/scenarios.py`. Record the answers with
   `.venv/bin/python -m tests.contract.test_recorded_responses --record`.
8. Run `make reference`, which writes the rows of `docs/reference/routes.md`.
9. Add a line to `CHANGELOG.md`. No test checks this.

The tests are in `tests/unit/web/test_openapi.py`, `tests/unit/access/test_request_guard.py`,
`tests/unit/test_layers.py`, `tests/contract/test_recorded_responses.py` and `tests/unit/test_docs.py`.
"""

from app.web.openapi.service_operations import SERVICE_OPERATIONS
from app.web.openapi.task_operations import TASK_OPERATIONS

OPERATIONS = (*TASK_OPERATIONS, *SERVICE_OPERATIONS)
