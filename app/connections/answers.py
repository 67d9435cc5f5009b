"""Error answers to requests that do not reach the application, in the form of all other errors."""

import json
from http import HTTPStatus

# The longest first line of a request: `GET /monitor` with 500 parameters `uuid` takes 21 kB.
MAX_REQUEST_LINE = 32_768
# Status, code and message of the answers to requests that cannot be read.
BAD_REQUEST = (HTTPStatus.BAD_REQUEST, "bad_request", "the request is not valid HTTP")
URI_TOO_LONG = (
    HTTPStatus.REQUEST_URI_TOO_LONG,
    "uri_too_long",
    "the URL is too long: it must have at most 32 kB",
)
HEADERS_TOO_LARGE = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "request_header_fields_too_large",
    "there are too many headers, or one of them is too long",
)


def build_error_body(code: str, message: str) -> bytes:
    """Return the JSON body of an error."""
    return json.dumps({"error": message, "code": code}).encode() + b"\n"


def build_error_answer(status: HTTPStatus, code: str, message: str) -> bytes:
    """Return a whole HTTP answer that announces the end of the connection."""
    body = build_error_body(code, message)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
