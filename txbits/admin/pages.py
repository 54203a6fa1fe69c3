"""
What requests to the operator's listener are answered with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen
from twisted.web.server import NOT_DONE_YET, Request

READING = (b"GET", b"HEAD")

_TEXT = b"text/plain; charset=utf-8"


@frozen
class Page:
    """
    What a request is answered with.

    :ivar body: The body.
    :ivar content_type: The type of the body.
    :ivar status: The status.
    :ivar headers: Further headers.
    """

    body: bytes
    content_type: bytes = _TEXT
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


def not_allowed(methods: Sequence[bytes] = READING) -> Page:
    """
    The page for a request with another method.

    :param methods: Those that there are.
    """
    allowed = b", ".join(methods)
    text = b"allowed methods: %b\n" % allowed
    return Page(text, status=405, headers=((b"Allow", allowed),))


def see_other(path: bytes) -> Page:
    """
    The answer to a form that was carried out: the browser then loads a page, so that
    reloading that does not send the form again.

    :param path: The path of the page.
    """
    return Page(b"", status=303, headers=((b"Location", path),))


#: Makes a page, now or later.
MakePage = Callable[[], Page | Awaitable[Page]]


def write(request: Request, page: Page) -> int:
    """
    Answer a request with a page, unless its connection is gone.

    :returns: What a resource returns whose request is answered elsewhere.
    """
    if not request._disconnected:
        request.setResponseCode(page.status)
        headers = [
            (b"Server", b"txbits"),
            (b"Content-Type", page.content_type),
            (b"Content-Length", b"%d" % len(page.body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
        ]
        for name, value in headers:
            request.setHeader(name, value)
        for name, value in page.headers:
            request.responseHeaders.addRawHeader(name, value)
        if request.method != b"HEAD":
            request.write(page.body)
        request.finish()
    return NOT_DONE_YET
