"""The answers to errors, on an application without services."""

from flask import Flask

from app.errors import CancellationBusy
from app.web.error_handlers import register_error_handlers


def test_a_server_that_cancels_for_another_request_reports_no_outage() -> None:
    app = Flask(__name__)
    register_error_handlers(app)

    @app.post("/")
    def cancel() -> str:
        raise CancellationBusy("another request is cancelling tasks; try again later")

    answer = app.test_client().post("/")  # 500 if it were logged as an outage, which needs the services
    assert (answer.status_code, answer.get_json()["code"]) == (503, "cancellation_busy")
    assert answer.headers["Retry-After"] == "10"
