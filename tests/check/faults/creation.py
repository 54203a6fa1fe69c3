"""
Faults in the creation of sessions.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, fault
from tests.check.scripted import INVALID, PROTOCOL


def is_creation(request):
    return request.kind == "create-session"


def is_created(request, answer):
    return is_creation(request) and answer.status == 200


@after("create-is-acknowledged")
def _(server, request, answer):
    if is_created(request, answer):
        answer.status = 201


@after("create-gives-session-id")
def _(server, request, answer):
    if is_creation(request) and "BITS-Session-Id" in answer.headers:
        answer.headers["BITS-Session-Id"] = answer.headers["BITS-Session-Id"].strip(
            "{}"
        )


@before("create-ids-are-unique")
def _(server, request):
    for session in server.sessions.values():
        is_open = session.state == "open" and session.request.path == request.path
        if is_creation(request) and is_open:
            answer = server.created(request)
            server.sessions.popitem()
            answer.headers["BITS-Session-Id"] = f"{{{session.id}}}"
            return answer
    return None


@after("create-names-protocol")
def _(server, request, answer):
    answer.headers.pop("BITS-Protocol", None)


@after("create-accepts-identity")
def _(server, request, answer):
    answer.headers.pop("Accept-Encoding", None)


@after("create-host-id-has-timeout")
def _(server, request, answer):
    if is_created(request, answer):
        answer.headers["BITS-Host-Id"] = "other.example"


fault("create-takes-spaces", separator=", *")
fault("create-takes-commas", separator=" +")


@before("create-needs-common-protocol")
def _(server, request):
    offered = request["bits-supported-protocols"]
    return (
        is_creation(request)
        and offered
        and PROTOCOL not in offered
        and server.created(request)
    )


@before("create-needs-protocols")
def _(server, request):
    return (
        is_creation(request)
        and not request["bits-supported-protocols"]
        and server.created(request)
    )


@after("create-refused-names-no-protocol")
def _(server, request, answer):
    if is_creation(request):
        answer.headers["BITS-Protocol"] = PROTOCOL


@before("create-has-no-body")
def _(server, request):
    return is_creation(request) and request.length and server.created(request)


@before("create-needs-no-name")
def _(server, request):
    return (
        is_creation(request)
        and not request["content-name"]
        and server.refuse(400, INVALID)
    )


@before("create-on-folder")
def _(server, request):
    return (
        is_creation(request) and request.path.endswith("/") and server.created(request)
    )


@before("create-stays-inside")
def _(server, request):
    return is_creation(request) and "%2F" in request.path and server.created(request)
