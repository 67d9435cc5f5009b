"""Who may call what."""

import ipaddress

from flask import request

from app.errors import Forbidden

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


def require_operator() -> None:
    """Forbidden unless the caller sits on this very machine, and no proxy stands between."""
    address = ipaddress.ip_address(request.remote_addr or "0.0.0.0")  # noqa: S104 - compared, not bound
    if not address.is_loopback or any(name in request.headers for name in _FORWARDED):
        raise Forbidden("this route is for operators, from the server's own machine")
