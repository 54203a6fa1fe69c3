"""
One request of a download: what is asked for, what the answer means, and its body.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from txbits._agents import coding_of
from txbits.client._requests import NoAnswer
from txbits.client._url import to_wire
from txbits.client.events import DownloadFailed

# RFC 9110, section 14.4.
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19})")

# RFC 9110, section 8.8.3; one that begins with W/ is weak.
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@frozen
class Head:
    """
    The head of a response.

    :ivar status: The status.
    :ivar length: How many bytes follow; ``None`` if that is not told.
    :ivar validators: All that may tell this state of the file from others.
    :ivar validator: The one of them that is strong enough for If-Range, if any is.
    :ivar first: Offset of the first byte of a part; ``None`` if it is none.
    :ivar total: The length of the file that it is a part of.
    :ivar location: Where else to look.
    :ivar encoding: What has been done to the bytes; ``None`` if nothing.
    """

    status: int
    length: int | None
    validators: tuple[str | None, str | None]
    validator: str | None
    first: int | None
    total: int | None
    location: str | None
    encoding: str | None

    @classmethod
    def of(cls, response: Any) -> Head:
        """Read it."""
        etag = _first(response, b"ETag")
        changed = _first(response, b"Last-Modified")
        match = _CONTENT_RANGE.fullmatch(_first(response, b"Content-Range") or "")
        return cls(
            response.code,
            response.length if isinstance(response.length, int) else None,
            (etag, changed),
            _validator(etag, changed, _first(response, b"Date")),
            int(match[1]) if match and match[1] else None,
            int(match[3]) if match else None,
            _first(response, b"Location"),
            coding_of(response),
        )


def _first(response: Any, name: bytes) -> str | None:
    values = response.headers.getRawHeaders(name)
    return values[0].decode("latin-1").strip(" \t") if values else None


def _validator(etag: str | None, changed: str | None, date: str | None) -> str | None:
    if etag is not None:
        # With a weak one the date is no better.
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    if changed is None or date is None:
        return None
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(changed)
        # RFC 9110, section 8.8.2.2: within one second a file may change twice.
        return changed if age.total_seconds() >= 1 else None
    except (ValueError, TypeError, OverflowError):
        return None


def moved(url: str, location: str) -> str:
    """
    Resolve the Location of a redirect.

    :param location: The value of the header.
    :raises DownloadFailed: If it is invalid, or leads from https to http.
    """
    try:
        found = to_wire(urljoin(url, location).partition("#")[0])
    except ValueError as error:
        words = f"the server redirected to {location[:200]!r}, which is not a URL"
        raise DownloadFailed(words, transient=False) from error
    if url.startswith("https:") and not found.startswith("https:"):
        words = f"the server redirected to {found[:200]}, which is not encrypted"
        raise DownloadFailed(words, transient=False)
    return found


class Body(Protocol):
    """
    Takes the body of a response.

    :param clock: For the time-out.
    :param patience: For how many seconds nothing may come.
    :param take: Is given the bytes.
    :param drop: Drops the connection.
    :ivar ended: Fires when the body has come. It fails with
        :class:`~txbits.client._requests.NoAnswer` if it has not come whole, and as
        *take* does. When it is cancelled, the connection is dropped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        patience: float,
        take: Callable[[bytes], None],
        drop: Callable[[], None],
    ) -> None:
        self._take = take
        self._drop = drop
        self._patience = patience
        self._late = clock.callLater(patience, self._expire)
        self.ended: Deferred[None] = Deferred(lambda _: self._stop())

    def dataReceived(self, data: bytes) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        if self.ended.called:
            return
        self._late.reset(self._patience)
        try:
            self._take(data)
        except Exception:  # noqa: BLE001  the waiting Deferred gets it
            self._end(Failure())
            self._drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        whole = reason.check(ResponseDone)
        self._end(None if whole else Failure(NoAnswer("the connection was lost")))

    def _expire(self) -> None:
        words = f"nothing was heard of the server for {self._patience:g} seconds"
        self._end(Failure(NoAnswer(words)))
        self._drop()

    def _end(self, outcome: Failure | None) -> None:
        self._stop_clock()
        if not self.ended.called:
            self.ended.callback(outcome)

    def _stop(self) -> None:
        self._stop_clock()
        self._drop()

    def _stop_clock(self) -> None:
        if self._late.active():
            self._late.cancel()
