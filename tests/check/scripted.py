"""
A BITS server in memory that does everything right, but for one fault.

It shares no code with txbits, so that the kit is not asked whether txbits agrees with
itself. A fault is a few attributes of the server: hooks that look at requests before
they are served (``before``) and at answers before they are sent (``after``), and
switches for what takes more than that. :mod:`tests.check.faults` has one for each
check.
"""

from __future__ import annotations

import re

from attrs import define, field

PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"

INVALID, NOT_FOUND, DENIED, FAIL = 0x80070057, 0x8020001F, 0x80070005, 0x80004005

_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?")
_RANGE = re.compile(r"([a-z]+) (\d{1,19})-(\d{1,19})/(\d{1,19})")
_KINDS = ("ping", "create-session", "fragment", "close-session", "cancel-session")


@define(eq=False)
class Answer:
    """What is to be sent."""

    status: int
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""
    version: str = "1.1"

    def to_bytes(self):
        lines = [f"HTTP/{self.version} {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@define(eq=False)
class Request:
    """The head of a request."""

    method: str
    target: str
    names: list[str]
    values: dict[str, list[str]]
    connection: object

    def __getitem__(self, name):
        """The first value of a header, or nothing."""
        return self.values.get(name, [""])[0]

    @property
    def kind(self):
        return self["bits-packet-type"].lower()

    @property
    def path(self):
        target = re.sub(r"^https?://[^/]*", "", self.target)
        return target.partition("?")[0]

    @property
    def query(self):
        return self.target.partition("?")[2]

    @property
    def length(self):
        value = self["content-length"]
        return int(value) if value else None

    @property
    def is_chunked(self):
        return "chunked" in self["transfer-encoding"]

    @property
    def range(self):
        """First, last and total, or nothing."""
        match = _RANGE.fullmatch(self["content-range"].lower())
        return match and tuple(map(int, match.groups()[1:]))

    @property
    def first(self):
        return self.range[0] if self.range else None


@define(eq=False)
class Session:
    """A session, also one that has ended."""

    id: str
    request: Request
    data: bytearray = field(factory=bytearray)
    total: int | None = None
    receiving: object = None
    state: str = "open"
    is_broken: bool = False
    fragments: int = 0
    ended_on: object = None
    last_on: object = None

    @property
    def is_complete(self):
        return self.total is not None and len(self.data) >= self.total


class Connection:
    """The server's end of a connection."""

    def __init__(self, server, link):
        self.server = server
        self.link = link
        self.data = b""
        self.request = None
        self.missing = 0
        self.session = None
        self.offset = 0
        self.answer = None

    def received(self, data):
        self.data += data
        while self.data and not self.link.is_closed:
            if self.request is None:
                head, found, rest = self.data.partition(b"\r\n\r\n")
                if not found:
                    return
                self.data = rest
                self.begin(head.decode("latin-1"))
            elif self.request.is_chunked:
                match = re.fullmatch(
                    rb"([0-9a-f]+)\r\n(.*)\r\n0\r\n\r\n", self.data, re.DOTALL
                )
                if match is None:
                    return
                self.data = b""
                self.body(match[2])
                self.finish()
            else:
                part, self.data = self.data[: self.missing], self.data[self.missing :]
                self.missing -= len(part)
                self.body(part)
            if self.request and not self.missing and not self.request.is_chunked:
                self.finish()

    def begin(self, head):
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        names, values = [], {}
        for line in lines:
            name, _, value = line.partition(": ")
            names.append(name)
            values.setdefault(name.lower(), []).append(value)
        self.request = Request(method, target, names, values, self)
        self.missing = self.request.length or 0
        self.session, self.offset, self.answer = self.server.serve(self.request)
        is_wanted = self.answer is None and self.server.continues
        if self.request["expect"] and is_wanted:
            self.link.to_client(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body(self, part):
        session = self.session
        if session is not None and self.answer is None:
            held = len(session.data)
            if self.server.overwrites:
                session.data[self.offset : self.offset + len(part)] = part
            else:
                session.data += part[max(0, held - self.offset) :]
        self.offset += len(part)

    def finish(self):
        request, session = self.request, self.session
        self.request = self.session = None
        if session is not None:
            session.receiving = None
        if self.answer is None:
            self.answer = self.server.stored(request, session)
        self.reply(request, session, self.answer)

    def reply(self, request, session, answer):
        if answer is SILENCE:
            return
        answer = self.server.finished(request, session, answer)
        self.link.to_client(answer.to_bytes())
        if answer.headers.get("Connection") == "close":
            self.link.close()

    def lost(self):
        """The client has ended it, or dropped it."""
        session, self.session = self.session, None
        if session is not None and session.receiving is self:
            session.receiving = None
            session.is_broken = self.server.breaks
            if not self.server.keeps:
                del session.data[:]
        self.link.close()


#: In place of an answer.
SILENCE = object()


@define(eq=False)
class Server:
    """
    The server.

    :ivar before: Looks at a request, and may answer it.
    :ivar after: Looks at an answer, and may change it.
    :ivar separator: What stands between protocols.
    :ivar continues: Whether it says that it continues.
    :ivar keeps: Whether it keeps what it has of a fragment that is cut short.
    :ivar breaks: Whether a fragment that is cut short is the end of its session.
    :ivar overwrites: Whether bytes that are held are written again.
    :ivar key: By what, besides its id, a session is known.
    :ivar own_ids: Whether sessions have ids of its own making, which are no GUIDs.
    """

    before: object = None
    after: object = None
    separator: str = "[ ,]+"
    continues: bool = True
    keeps: bool = True
    breaks: bool = False
    overwrites: bool = False
    key: object = staticmethod(lambda request: request.path)
    is_same_id: object = staticmethod(lambda one, other: one.upper() == other.upper())
    own_ids: bool = False
    sessions: dict[str, Session] = field(factory=dict)
    files: dict[str, bytes] = field(factory=dict)

    # What has happened.

    def find(self, text):
        """The session that an id names, also one that has ended."""
        if self.own_ids:
            return self.sessions.get(text)
        match = _GUID.fullmatch(text)
        if match is None:
            return None
        found = self.sessions.get(match[1].upper())
        return found if found and self.is_same_id(match[1], found.id) else None

    def session_of(self, request):
        return self.find(request["bits-session-id"])

    def serve(self, request):
        """
        Look at a head.

        :returns: The session that the body is for, the body's offset in it, and the
            answer, if that is clear already.
        """
        answer = (self.before and self.before(self, request)) or self.check(request)
        session = self.session_of(request)
        if answer is None and request.kind == "fragment" and request.range:
            offset = len(session.data) if request.range[2] == 0 else request.first
            self.end_older(session)
            session.receiving = session.last_on = request.connection
            return session, offset, None
        return None, 0, answer

    def end_older(self, session):
        older, session.receiving = session.receiving, None
        if older is not None:
            older.session = None
            older.link.close()

    def check(self, request):
        """Refuse what is wrong with a head, and answer what needs no body."""
        if request.method == "GET":
            return self.get(request)
        if request.method not in ("BITS_POST", "POST"):
            return self.refuse(405, INVALID)
        if request.kind not in _KINDS:
            return self.refuse(400, INVALID)
        if any(len(value) > 4096 for each in request.values.values() for value in each):
            return self.refuse(400, INVALID)
        if request.kind == "ping":
            return Answer(200)
        if request.kind == "create-session":
            return self.create(request)
        ids = request.values.get("bits-session-id", [])
        if len(ids) != 1 or not (self.own_ids or _GUID.fullmatch(ids[0])):
            return self.refuse(400, INVALID)
        if request.kind == "fragment":
            return self.fragment(request)
        if request.length or request.is_chunked:
            return self.refuse(400, INVALID)
        return self.end(request)

    def create(self, request):
        offered = re.split(self.separator, request["bits-supported-protocols"])
        if request.length or PROTOCOL not in offered or request.path.endswith("/"):
            return self.refuse(400, INVALID)
        if "%2F" in request.path or request.path in self.files:
            return self.refuse(403, DENIED)
        return self.created(request)

    def created(self, request):
        number = len(self.sessions) + 0xA
        id_ = f"ABCDEF00-0000-4000-8000-{number:012X}"
        shown = f"{{{id_}}}"
        if self.own_ids:
            id_ = shown = f"Own/{number}=="
        self.sessions[id_] = Session(id_, request)
        headers = {
            "BITS-Session-Id": shown,
            "BITS-Protocol": PROTOCOL,
            "Accept-Encoding": "identity",
        }
        return Answer(201 if request.method == "POST" else 200, headers)

    def is_known(self, request):
        session = self.session_of(request)
        return (
            session is not None
            and session.state == "open"
            and self.key(session.request) == self.key(request)
        )

    def fragment(self, request):
        if request["content-encoding"] not in ("", "identity"):
            return self.refuse(400, INVALID)
        if request.length is None and not request.is_chunked:
            return self.refuse(411, INVALID)
        value = request["content-range"]
        if re.fullmatch(r"bytes (0-0|\*|0--1)/0", value) and not request.length:
            request.values["content-range"] = ["bytes 0-0/0"]
        elif not self.is_range(request):
            return self.refuse(400, INVALID)
        session = self.session_of(request)
        if not self.is_known(request) or session.is_broken:
            return self.refuse(500, NOT_FOUND)
        first, _, total = request.range
        if session.total not in (None, total):
            return self.refuse(400, INVALID)
        # What arrives of an older request stays with it.
        if first > len(session.data):
            return self.refuse(416, 0, received=len(session.data))
        session.total = total
        return None

    def is_range(self, request):
        match = _RANGE.fullmatch(request["content-range"].lower())
        if match is None or match[1] != "bytes":
            return False
        first, last, total = request.range
        is_long = request.is_chunked or last - first + 1 == request.length
        return first <= last < total < 2**63 and is_long

    def stored(self, request, session):
        """The body of a fragment has come."""
        session.fragments += 1
        return Answer(200, {"BITS-Received-Content-Range": str(len(session.data))})

    def end(self, request):
        session = self.session_of(request)
        is_close = request.kind == "close-session"
        if is_close and session and session.state == "published":
            return Answer(200)
        if not self.is_known(request):
            return self.refuse(500, NOT_FOUND)
        self.end_older(session)
        session.ended_on = request.connection
        session.state = "discarded" if is_close else "cancelled"
        if is_close and (session.is_complete or not session.data):
            self.files[session.request.path] = bytes(session.data)
            session.state = "published"
        return Answer(200)

    def get(self, request):
        data = self.files.get(request.path)
        if data is None:
            return Answer(404)
        return Answer(200, body=data)

    def refuse(self, status, hresult, received=None):
        code = f"0x{hresult:08X}"
        headers = {
            "BITS-Error": code,
            "BITS-Error-Code": code,
            "BITS-Error-Context": "0x5",
        }
        if received is not None:
            headers["BITS-Received-Content-Range"] = str(received)
        return Answer(status, headers)

    def finished(self, request, session, answer):
        """Complete an answer, in the way of every Ack."""
        answer.headers.setdefault("BITS-Packet-Type", "Ack")
        answer.headers.setdefault("Content-Length", str(len(answer.body)))
        if request.kind not in ("ping", "create-session") and self.is_named(request):
            answer.headers.setdefault("BITS-Session-Id", request["bits-session-id"])
        if self.after:
            self.after(self, request, answer)
        return answer

    def is_named(self, request):
        text = request["bits-session-id"]
        return text in self.sessions or _GUID.fullmatch(text) is not None
