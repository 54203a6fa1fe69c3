"""
What the tests of the operator's page have in common: sessions that there are not, and
what is read of HTML.
"""

from __future__ import annotations

from html.parser import HTMLParser
from uuid import UUID

from twisted.internet.defer import fail, succeed

from txbits._counts import Refused
from txbits.admin.page.glance import DirectoryState, Glance, ProcessState
from txbits.admin.page.samples import Rates
from txbits.admin.sessions import (
    InvalidCursor,
    Purged,
    SessionRecord,
    SessionsPage,
)
from txbits.errors import NoSuchSession
from txbits.protocol.refusals import REFUSALS

#: The time of every glance.
NOW = 1_800_000_000.0

_VOID = {"meta", "link", "input", "img", "br"}


def record(number: int = 1, **known) -> SessionRecord:
    """A session, half of which has arrived."""
    values = {
        "session": str(UUID(int=number)).upper(),
        "directory": "/logs",
        "destination": f"pc-{number}/today.log",
        "file_name": "C:\\today.log",
        "owner": "alice",
        "scheme": "basic",
        "client": "192.0.2.7",
        "bytes": 512,
        "total": 1024,
        "rate": 2048.0,
        "created": NOW - 100,
        "last_progress": NOW - 5,
        "state": "receiving",
        "attempts": 0,
    }
    return SessionRecord(**{**values, **known})


def refused(name: str = "destination-exists", **known) -> Refused:
    """A refusal of a certain name."""
    (row,) = [one for one in REFUSALS if one.name == name]
    values = {
        "directory": "/logs",
        "client": "192.0.2.8",
        "user": "bob",
        "destination": "pc-2/today.log",
        "packet": "Create-Session",
        "status": row.status,
        "hresult": int(row.hresult),
        "detail": "the detail",
        "at": NOW - 60,
    }
    return Refused(name, **{**values, **known})


def glance(**known) -> Glance:
    """A glance at a server with one directory."""
    values = {
        "at": NOW,
        "obstacles": (),
        "rates": Rates(10.0, (0.0, 1024.0), (0.0, 2.5), (0.0, 0.0), (1.0, 3.0)),
        "directories": (
            DirectoryState("/logs", "disk:/srv/logs", True, (), 3, 4096, 2**30, 0),
        ),
        "certificates": (("[::]:8443", NOW + 30.5 * 86400),),
        "refusals": (refused(),),
        "busiest": (),
        "processes": (ProcessState("here", 42, NOW - 86400, 7, 0, 0.002),),
    }
    return Glance(**{**values, **known})


class Sessions:
    """
    A view of sessions that are made up.

    :ivar records: The sessions.
    :ivar most_looked_at: How many are looked at for each page.
    :ivar fault: What the next calls fail with.
    :ivar listings: How often a page was asked for.
    """

    def __init__(self, records=()):
        self.records = list(records)
        self.most_looked_at = 1000
        self.fault = None
        self.faults = ()
        self.listings = 0
        self.operators = []

    def page(self, filters, cursor=None, limit=100):
        self.listings += 1
        if self.fault is not None:
            return fail(self.fault)
        if cursor is not None and not cursor.isdigit():
            return fail(InvalidCursor(cursor))
        start = end = int(cursor or 0)
        found = []
        while end < min(len(self.records), start + self.most_looked_at):
            if len(found) == limit:
                break
            if filters.takes(self.records[end], NOW):
                found.append(self.records[end])
            end += 1
        after = str(end) if end < len(self.records) else None
        return succeed(SessionsPage(found, after, self.faults))

    def get(self, session_id):
        if self.fault is not None:
            return fail(self.fault)
        for one in self.records:
            if one.session == session_id.upper():
                return succeed(one)
        return fail(NoSuchSession(session_id))

    def cancel(self, session_id, operator):
        found = self.get(session_id)
        self.operators.append(operator.user)
        return found.addCallback(self._remove)

    def _remove(self, one):
        self.records.remove(one)
        return one

    def purge(self, filters, operator, cursor=None, limit=100):
        if self.fault is not None:
            return fail(self.fault)
        self.operators.append(operator.user)
        fitting = [one for one in self.records if filters.takes(one, NOW)]
        for one in fitting[:limit]:
            self.records.remove(one)
        left = "more" if len(fitting) > limit else None
        return succeed(Purged(fitting[:limit], left, self.faults))


class Markup(HTMLParser):
    """
    HTML that was read.

    :ivar elements: Names and attributes of all elements.
    :ivar text: All text, with single spaces.
    """

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self._open: list[str] = []
        self.feed(html.decode())
        self.close()
        assert not self._open, f"not closed: {self._open}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def of(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for one, attributes in self.elements if one == name]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self._texts.append(data)
