"""
Faults in the ends of sessions.
"""

from __future__ import annotations

from tests.check.faults._registry import after, before, fault, is_cancelled, taken
from tests.check.faults.fragments import is_stuck
from tests.check.scripted import FAIL, SILENCE


@after("cancel-is-acknowledged")
def _(server, request, answer):
    if is_cancelled(answer, request):
        answer.status = 204


@before("cancel-ends-session")
def _(server, request):
    session = server.session_of(request)
    return (
        session
        and request.kind == "fragment"
        and session.state == "cancelled"
        and taken(request)
    )


@before("cancel-twice")
def _(server, request):
    session = server.session_of(request)
    return (
        request.kind == "cancel-session"
        and session
        and session.state == "cancelled"
        and taken(request)
    )


@before("cancel-of-a-complete-upload")
def _(server, request):
    session = server.session_of(request)
    return (
        request.kind == "cancel-session"
        and session
        and session.state == "open"
        and session.is_complete
        and server.refuse(500, FAIL)
    )


@before("cancel-while-receiving")
def _(server, request):
    return request.kind == "cancel-session" and is_stuck(server, request) and SILENCE


@before("cancels-at-once")
def _(server, request):
    session = server.session_of(request)
    return (
        request.kind == "cancel-session"
        and session
        and session.ended_on
        and session.ended_on is not request.connection
        and server.refuse(500, FAIL)
    )


fault("session-belongs-to-its-file", key=lambda request: None)


def is_incomplete(session):
    return session and session.data and not session.is_complete


@before("close-of-an-incomplete-upload")
def _(server, request):
    session = server.session_of(request)
    if request.kind == "close-session" and is_incomplete(session):
        server.files[request.path] = bytes(session.data)


@before("close-of-an-incomplete-upload-ends-session")
def _(server, request):
    session = server.session_of(request)
    return request.kind == "close-session" and is_incomplete(session) and taken(request)
