"""
Faults in the forms of packets.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, fault, taken
from tests.check.faults.creation import is_creation
from tests.check.scripted import FAIL, INVALID, NOT_FOUND, Answer


@before("packet-type-in-any-case")
def _(server, request):
    return request["bits-packet-type"] == "pInG" and server.refuse(400, INVALID)


@before("header-names-in-any-case")
def _(server, request):
    return "BITS-PACKET-TYPE" in request.names and server.refuse(400, INVALID)


@before("unknown-headers-are-ignored")
def _(server, request):
    return request["bits-frobnicate"] and server.refuse(400, INVALID)


fault("session-id-in-lower-case", is_same_id=lambda one, other: one == other)


@before("session-id-without-braces")
def _(server, request):
    return request["bits-session-id"][:1].isalnum() and server.refuse(400, INVALID)


@before("post-with-override")
def _(server, request):
    return request["x-http-method-override"] and server.refuse(405, INVALID)


@before("post-with-packet-type")
def _(server, request):
    return (
        request.method == "POST"
        and not request["x-http-method-override"]
        and server.refuse(405, INVALID)
    )


@after("create-over-post-is-201")
def _(server, request, answer):
    if request.method == "POST":
        answer.status = 200


@before("absolute-target")
def _(server, request):
    return request.target.startswith("http:") and server.refuse(404, INVALID)


fault("query-may-differ", key=lambda request: (request.path, request.query))
fault("host-may-differ", key=lambda request: (request.path, request["host"]))


@after("connection-is-kept")
def _(server, request, answer):
    answer.headers["Connection"] = "close"


@before("connection-may-change")
def _(server, request):
    session = server.session_of(request)
    return (
        session
        and session.data
        and request.first == len(session.data)
        and session.last_on is not request.connection
        and server.refuse(500, NOT_FOUND)
    )


fault("expect-is-answered", continues=False)


@before("fragment-may-be-chunked")
def _(server, request):
    return request.is_chunked and server.refuse(411, INVALID)


@before("length-may-be-missing")
def _(server, request):
    return (
        is_creation(request) and request.length is None and server.refuse(411, INVALID)
    )


@before("fragment-needs-length")
def _(server, request):
    return (
        request.kind == "fragment"
        and not (request.length or request.is_chunked)
        and request.length is None
        and server.refuse(500, FAIL)
    )


@before("packet-type-is-known")
def _(server, request):
    return request.kind == "frobnicate" and server.refuse(501, FAIL)


@before("packet-type-is-there")
def _(server, request):
    return request.method == "BITS_POST" and not request.kind and Answer(200)


@before("session-id-is-there")
def _(server, request):
    return (
        request.kind == "fragment"
        and not request["bits-session-id"]
        and server.refuse(500, NOT_FOUND)
    )


@before("session-id-is-guid")
def _(server, request):
    return request["bits-session-id"] == "{frobnicate}" and server.refuse(
        500, NOT_FOUND
    )


@before("session-id-is-there-once")
def _(server, request):
    return len(request.values.get("bits-session-id", "")) == 2 and taken(request)


@before("header-is-short")
def _(server, request):
    return (
        is_creation(request)
        and len(request["content-name"]) > 4096
        and server.created(request)
    )


@before("cancel-has-no-body")
def _(server, request):
    return request.kind == "cancel-session" and request.length and server.end(request)


@before("encoding-is-known")
def _(server, request):
    return request["content-encoding"] == "gzip" and taken(request)
