"""Answers to requests that do not reach the application, in the form of all other errors."""

import json
from http import HTTPStatus

# Status, code and sentence of the answers to requests that cannot be read.
BAD_REQUEST = (HTTPStatus.BAD_REQUEST, "bad_request", "the request is not valid HTTP")
URI_TOO_LONG = (HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", "the URL is too long")
HEADERS_TOO_LARGE = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "request_header_fields_too_large",
    "there are too many headers, or one of them is too long",
)


def error_body(code: str, sentence: str) -> bytes:
    """Return the JSON body of an error."""
    return json.dumps({"error": sentence, "code": code}).encode() + b"\n"


def error_answer(status: HTTPStatus, code: str, sentence: str) -> bytes:
    """Return a whole HTTP answer, after which the connection is closed."""
    body = error_body(code, sentence)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
