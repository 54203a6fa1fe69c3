"""
One fault of a server for each check: what makes that check fail, and no other.

A fault is what the scripted server is made with. Those that could break several checks
at once are narrowed down, by the offsets and names that a check uses, to one.
"""

from __future__ import annotations

from tests.check.scripted import (
    DENIED,
    FAIL,
    INVALID,
    NOT_FOUND,
    PROTOCOL,
    SILENCE,
    Answer,
)

FAULTS = {}

_OTHER_ID = "{99999999-9999-9999-9999-999999999999}"


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


# Acks.


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


# Create-Session.


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


# Forms.


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


# Ranges.


def is_range(request, *values):
    return request.kind == "fragment" and request["content-range"] in values


@before("range-is-there")
def _(server, request):
    return is_range(request, "") and server.refuse(500, FAIL)


@before("range-is-well-formed")
def _(server, request):
    return is_range(request, "lines 0-99/1000") and taken(request)


@before("range-runs-forward")
def _(server, request):
    return is_range(request, "bytes 99-0/1000") and server.refuse(416, 0, received=0)


@before("range-is-within-total")
def _(server, request):
    return is_range(request, "bytes 0-99/99") and taken(request)


@before("range-is-as-long-as-body")
def _(server, request):
    return is_range(request, "bytes 0-98/1000") and taken(request)


@before("range-is-below-2-to-63")
def _(server, request):
    return len(request["content-range"]) > 40 and server.refuse(500, FAIL)


@before("range-unit-in-any-case")
def _(server, request):
    return request["content-range"].startswith("Bytes") and server.refuse(400, INVALID)


@before("range-total-is-constant")
def _(server, request):
    return request["content-range"].endswith("/1001") and taken(request)


@before("range-of-nothing")
def _(server, request):
    return is_range(request, "bytes */0") and server.refuse(400, INVALID)


@before("range-of-one-byte")
def _(server, request):
    return is_range(request, "bytes 0-0/1") and server.refuse(400, INVALID)


# Fragments.


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


# Endings.


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


# Publishing.


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
