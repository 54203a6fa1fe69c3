"""
Faults in Acks.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, is_cancelled, is_strange, taken
from tests.check.scripted import FAIL, INVALID, NOT_FOUND

_OTHER_ID = "{99999999-9999-9999-9999-999999999999}"


@before("ping-is-acknowledged")
def _(server, request):
    return (
        request["bits-packet-type"] == "Ping"
        and request.method == "BITS_POST"
        and server.refuse(404, INVALID)
    )


@after("ack-http-version")
def _(server, request, answer):
    if is_cancelled(answer, request):
        answer.version = "1.0"


@after("ack-packet-type")
def _(server, request, answer):
    if is_cancelled(answer, request):
        del answer.headers["BITS-Packet-Type"]


@after("ack-content-length")
def _(server, request, answer):
    if is_cancelled(answer, request):
        del answer.headers["Content-Length"]


@after("ack-has-no-body")
def _(server, request, answer):
    if is_cancelled(answer, request):
        answer.body = b"done"
        answer.headers["Content-Length"] = "4"


@after("success-names-session")
def _(server, request, answer):
    if is_cancelled(answer, request):
        del answer.headers["BITS-Session-Id"]


def is_refused_range(request):
    return request["content-range"] == "bytes 9-1/1000"


@after("refusal-names-no-other-session")
def _(server, request, answer):
    if is_refused_range(request):
        answer.headers["BITS-Session-Id"] = _OTHER_ID


@after("refusal-names-session")
def _(server, request, answer):
    if is_refused_range(request):
        del answer.headers["BITS-Session-Id"]


@after("refusal-has-error")
def _(server, request, answer):
    if is_refused_range(request):
        del answer.headers["BITS-Error"]
        del answer.headers["BITS-Error-Code"]


@after("refusal-has-both-errors")
def _(server, request, answer):
    # As IIS does.
    answer.headers.pop("BITS-Error", None)


@after("refusal-has-context")
def _(server, request, answer):
    answer.headers.pop("BITS-Error-Context", None)


@after("error-has-eight-digits")
def _(server, request, answer):
    for name in ("BITS-Error", "BITS-Error-Code"):
        if answer.headers.get(name) == "0x00000000":
            answer.headers[name] = "0x0"
        if is_refused_range(request):
            answer.headers[name] = "0x57"


@after("success-has-no-error")
def _(server, request, answer):
    if answer.status == 200:
        answer.headers["BITS-Error-Code"] = "0x00000000"


@before("unknown-session-fragment")
def _(server, request):
    return (
        request.kind == "fragment"
        and is_strange(server, request)
        and server.refuse(404, NOT_FOUND)
    )


@before("unknown-session-close")
def _(server, request):
    return (
        request.kind == "close-session"
        and is_strange(server, request)
        and server.refuse(500, FAIL)
    )


@before("unknown-session-cancel")
def _(server, request):
    return (
        request.kind == "cancel-session"
        and is_strange(server, request)
        and taken(request)
    )
