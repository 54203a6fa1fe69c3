"""
Faults in fragments.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, fault
from tests.check.faults.ranges import is_range
from tests.check.scripted import INVALID, SILENCE


def is_stored(request, answer):
    return request.kind == "fragment" and answer.status == 200


@after("fragment-is-acknowledged")
def _(server, request, answer):
    if is_stored(request, answer):
        answer.status = 202


@after("fragment-says-what-is-next")
def _(server, request, answer):
    session = server.session_of(request)
    if is_range(request, "bytes 0-499/1000") and session.fragments == 1:
        # The last byte that it has.
        answer.headers["BITS-Received-Content-Range"] = "499"


@before("fragments-go-on")
def _(server, request):
    return is_range(request, "bytes 1-99/1000") and server.refuse(400, INVALID)


@before("fragment-of-a-long-file")
def _(server, request):
    return request.range and request.range[2] > 2**32 and server.refuse(400, INVALID)


@after("fragment-has-no-reply-url")
def _(server, request, answer):
    if is_stored(request, answer):
        answer.headers["BITS-Reply-URL"] = "http://server.example/reply"


def is_gap(server, request):
    session = server.session_of(request)
    is_beyond = request.first == 600 and session and len(session.data) == 500
    return request.kind == "fragment" and is_beyond


@before("gap-is-out-of-step")
def _(server, request):
    return is_gap(server, request) and server.refuse(400, INVALID)


@after("gap-says-what-is-next")
def _(server, request, answer):
    if is_gap(server, request):
        del answer.headers["BITS-Received-Content-Range"]


@after("gap-is-no-error")
def _(server, request, answer):
    if is_gap(server, request):
        answer.headers["BITS-Error"] = answer.headers["BITS-Error-Code"] = "0x80004005"


@before("gap-is-not-kept")
def _(server, request):
    if is_gap(server, request):
        server.session_of(request).data += bytes(200)
        return server.refuse(416, 0, received=500)
    return None


@before("overlap-is-answered")
def _(server, request):
    return is_range(request, "bytes 100-299/1000") and server.refuse(400, INVALID)


@before("overlap-is-skipped")
def _(server, request):
    return is_range(request, "bytes 100-299/1000") and server.refuse(
        416, 0, received=200
    )


@before("fragment-may-be-repeated")
def _(server, request):
    session = server.session_of(request)
    return (
        is_range(request, "bytes 0-499/1000")
        and session
        and len(session.data) == 500
        and server.refuse(400, INVALID)
    )


@before("last-fragment-may-be-repeated")
def _(server, request):
    session = server.session_of(request)
    return (
        request.kind == "fragment"
        and session
        and session.is_complete
        and session.state == "open"
        and server.refuse(400, INVALID)
    )


fault("cut-fragment-is-sent-again", breaks=True)
fault("cut-fragment-is-kept", keeps=False)


def is_stuck(server, request):
    session = server.session_of(request)
    return session and session.receiving and session.receiving is not request.connection


@before("stuck-connection-locks-nobody-out")
def _(server, request):
    return request.kind == "fragment" and is_stuck(server, request) and SILENCE


@before("stuck-connection-is-ended")
def _(server, request):
    if request.kind == "fragment" and is_stuck(server, request):
        session = server.session_of(request)
        session.receiving.session = session.receiving = None
