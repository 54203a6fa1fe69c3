"""
What faults are put together with.
"""

from __future__ import annotations

from tests.check.scripted import Answer

FAULTS = {}


def fault(name, **attributes):
    """A fault that needs no hook."""
    FAULTS[name] = attributes


def before(name):
    """A fault that answers some requests: what the function returns, if anything."""

    def add(function):
        FAULTS[name] = {"before": function}
        return function

    return add


def after(name):
    """A fault that changes some answers."""

    def add(function):
        FAULTS[name] = {"after": function}
        return function

    return add


def is_cancelled(answer, request):
    return request.kind == "cancel-session" and answer.status == 200


def is_strange(server, request):
    """Whether the session was never there."""
    return "-" in request["bits-session-id"] and server.session_of(request) is None


def taken(request):
    """The Ack of something that should have been refused."""
    return Answer(200, {"BITS-Session-Id": request["bits-session-id"]})
