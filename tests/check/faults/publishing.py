"""
Faults in publishing.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, fault, taken
from tests.check.faults.creation import is_creation
from tests.check.scripted import DENIED, INVALID, NOT_FOUND, Answer


def is_publishing(server, request):
    session = server.session_of(request)
    return request.kind == "close-session" and session and session.is_complete


@after("close-is-acknowledged")
def _(server, request, answer):
    if is_publishing(server, request):
        answer.status = 201


@after("close-names-session")
def _(server, request, answer):
    if is_publishing(server, request):
        del answer.headers["BITS-Session-Id"]


def is_published(server, request):
    session = server.session_of(request)
    return session and session.state == "published"


@before("close-ends-session")
def _(server, request):
    return (
        request.kind == "fragment" and is_published(server, request) and taken(request)
    )


@before("close-twice")
def _(server, request):
    return (
        request.kind == "close-session"
        and is_published(server, request)
        and server.refuse(500, NOT_FOUND)
    )


@before("cancel-after-close")
def _(server, request):
    return (
        request.kind == "cancel-session"
        and is_published(server, request)
        and taken(request)
    )


@before("close-of-an-empty-file")
def _(server, request):
    session = server.session_of(request)
    return (
        request.kind == "close-session"
        and session
        and not session.data
        and server.refuse(400, INVALID)
    )


@before("file-stays")
def _(server, request):
    return (
        is_creation(request)
        and request.path in server.files
        and server.refuse(409, DENIED)
    )


fault("file-is-as-sent", overwrites=True)


@before("file-appears-at-close")
def _(server, request):
    if request.method == "GET" and request.path not in server.files:
        for session in server.sessions.values():
            if session.request.path == request.path:
                return Answer(200, body=bytes(session.data))
    return None
