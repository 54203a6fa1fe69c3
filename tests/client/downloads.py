"""
What tests of downloads have in common: a server that does what a test says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from txbits.client import (
    DownloadFailed,
    download,
)
from txbits.client._partial import Origin, Partial

reactor: Any = _reactor

DATA = bytes(n * 31 % 251 for n in range(200_000))


@define(eq=False)
class ScriptedFile(Resource):
    """
    A file.

    :ivar etag: Its ETag; none if empty.
    :ivar cuts: After how many bytes to end the connection, one answer each.
    :ivar stops: Fires when an answer has stopped in the middle, if it is set.
    :ivar answers: What to answer instead, one request each: statuses and headers.
    :ivar headers: What goes with each answer.
    :ivar knows_ranges: Whether parts are given.
    :ivar knows_if_range: Whether If-Range is looked at.
    :ivar requests: The headers of each request.
    """

    isLeaf = True
    data: bytes = DATA
    etag: str = '"1"'
    cuts: list[int] = field(factory=list)
    stops: Deferred[None] | None = None
    answers: list[tuple[int, dict[str, str]]] = field(factory=list)
    headers: dict[str, str] = field(factory=dict)
    knows_ranges: bool = True
    knows_if_range: bool = True
    requests: list[Headers] = field(factory=list)

    def __attrs_pre_init__(self):
        super().__init__()

    def asked(self, name):
        """The values of a header in all requests."""
        values = [
            headers.getRawHeaders(name.encode(), [None])[0] for headers in self.requests
        ]
        return [value and value.decode() for value in values]

    def render_GET(self, request):
        self.requests.append(request.requestHeaders.copy())
        for name, value in self.headers.items():
            request.setHeader(name.encode(), value.encode())
        if self.answers:
            status, headers = self.answers.pop(0)
            request.setResponseCode(status)
            for name, value in headers.items():
                request.setHeader(name.encode(), value.encode())
            return b""
        if self.etag:
            request.setHeader(b"ETag", self.etag.encode())
        body = self.data
        match = re.fullmatch(rb"bytes=(\d+)-", request.getHeader(b"Range") or b"")
        condition = request.getHeader(b"If-Range")
        is_same = condition == self.etag.encode() or not self.knows_if_range
        if match and is_same and self.knows_ranges:
            first, total = int(match[1]), len(self.data)
            if first >= total:
                request.setResponseCode(416)
                request.setHeader(b"Content-Range", b"bytes */%d" % total)
                return b""
            request.setResponseCode(206)
            value = b"bytes %d-%d/%d" % (first, total - 1, total)
            request.setHeader(b"Content-Range", value)
            body = body[first:]
        request.setHeader(b"Content-Length", b"%d" % len(body))
        if self.stops is not None:
            stops, self.stops = self.stops, None
            request.write(body[: len(body) // 2])
            reactor.callLater(0.01, stops.callback, None)
            return NOT_DONE_YET
        if self.cuts:
            request.write(body[: self.cuts.pop(0)])
            # What was written goes out before.
            request.transport.loseConnection()
            return NOT_DONE_YET
        return body


class DownloadCase(TestCase):
    """A site, and a folder to download to."""

    timeout = 60

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.file = ScriptedFile()
        self.events = []
        self.url = self.serve(self.file)

    def serve(self, resource):
        site = Site(resource, timeout=None)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/x"

    def download(self, url=None, **more):
        return download(
            url or self.url,
            self.path,
            reactor=reactor,
            random=lambda: 0.0,
            on_event=self.events.append,
            **more,
        )

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    async def some_arrives(self):
        """Wait until there is a part with bytes in it, and return its path."""
        part = self.folder / ".file.txbits-part"
        while not part.exists() or not part.stat().st_size:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        return part

    def assert_arrived(self, data=DATA):
        self.assertEqual(self.path.read_bytes(), data)
        self.assertEqual(self.names(), ["file"])

    async def failure(self, downloading):
        try:
            await downloading
        except DownloadFailed as error:
            return error
        return self.fail("it did not fail")

    def place(self, data, validator='"1"', length=None, url=None):
        """Leave a part there, as an earlier run would have."""
        length = len(DATA) if length is None else length
        partial = Partial.open(str(self.path))
        partial.begin(Origin.of(url or self.url, validator, length))
        partial.write(data)
        partial.close()
