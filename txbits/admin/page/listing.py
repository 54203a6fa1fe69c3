"""
The HTML of the sessions: their list, one of them, and the whole overview.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field
from twisted.web.template import Element, Tag, renderer, tags

from txbits.admin.page.glance import Glance
from txbits.admin.page.rendering import (
    ACTIVE,
    Row,
    Slotted,
    filled,
    query_of,
    template,
    who_of,
)
from txbits.admin.page.server import Plots, Refusals, Server
from txbits.admin.page.words import ago, moment, number, size, size_rate
from txbits.admin.sessions import STATES, SessionFilter, SessionRecord
from txbits.sessions.naming import shown

#: How many sessions are shown at a time.
MOST_SESSIONS = 25

#: The choices of "without progress for", in seconds, and what they are called.
AGES = {
    600: "10 minutes",
    3600: "an hour",
    86400: "a day",
    604800: "7 days",
    2592000: "30 days",
}

#: How states of sessions are called, where that is not their name.
_STATE_WORDS = {
    "in_doubt": "in doubt",
    "unanswered": "waiting for the application",
    "refused": "refused by the application",
    "due": "due for publication",
    "taken": "taken by the application",
    "standing": "published",
}


def state_words(state: str | None) -> str:
    """The words for a state of a session."""
    return "unknown" if state is None else _STATE_WORDS.get(state, state)


def file_of(record: SessionRecord) -> str:
    """The path of a session's file, from the root."""
    if record.destination is None:
        return f"{record.directory} (session {record.session[:8]}…)"
    return shown(f"{record.directory.rstrip('/')}/{record.destination}")


def received_of(record: SessionRecord) -> str:
    """How much of a file is there."""
    if record.bytes is None:
        return "unknown"
    if record.total is None:
        return size(record.bytes)
    part = 100 if not record.total else 100 * record.bytes // record.total
    return f"{size(record.bytes)} of {size(record.total)} ({part} %)"


@define
class Listing:
    """
    Sessions to show.

    :ivar sessions: The sessions.
    :ivar filters: The filters that they match.
    :ivar is_first: Whether these are the first.
    :ivar next: The cursor of those that follow, if any do.
    :ivar faults: Why some are missing.
    """

    sessions: Sequence[SessionRecord]
    filters: SessionFilter
    is_first: bool = True
    next: str | None = None
    faults: Sequence[str] = field(factory=list)


_SESSION = Row(
    *("session_row", "prefix"),
    *("session", "file", "value", "most", "received", "rate", "who", "state"),
    "progressed",
)


def _session_row(one: SessionRecord, now: float, prefix: str) -> dict[str, str]:
    value, most = _part(one)
    return {
        "prefix": prefix,
        "session": one.session,
        "file": file_of(one),
        "value": str(value),
        "most": str(most),
        "received": received_of(one),
        "rate": "-" if one.rate is None else size_rate(one.rate),
        "who": who_of(one.owner, one.client),
        "state": state_words(one.state),
        "progressed": ago(now - one.last_progress),
    }


def _part(one: SessionRecord) -> tuple[int, int]:
    """How much of how much is there, for a bar."""
    if one.total == 0:
        return 1, 1
    return (0, 1) if one.total is None else (one.bytes or 0, one.total)


class _Table(Slotted):
    """
    A table of sessions.

    :param name: The name of what is in it, which its rows and its title begin with.
    """

    loader = template("session_table")

    def __init__(self, records: Sequence[SessionRecord], now: float, name: str) -> None:
        rows = _SESSION.written(_session_row(one, now, name) for one in records)
        super().__init__(title=f"{name}-title", rows=rows)


class Busiest(Element):
    """The busiest sessions, unless all sessions are shown anyway."""

    loader = template("busiest")

    def __init__(self, glance: Glance) -> None:
        super().__init__()
        count = sum(one.sessions for one in glance.directories)
        self._records = glance.busiest if count > MOST_SESSIONS else ()
        self._now = glance.at

    @renderer
    def shown(self, request: object, tag: Tag) -> Tag:
        return tag if self._records else tag(hidden="hidden")

    @renderer
    def table(self, request: object, tag: Tag) -> Element | str:
        records = self._records
        return _Table(records, self._now, "busiest") if records else ""


class Sessions(Element):
    """A table of sessions."""

    loader = template("sessions")

    def __init__(self, listing: Listing, now: float) -> None:
        super().__init__()
        self._listing = listing
        self._now = now

    @renderer
    def faults(self, request: object, tag: Tag) -> Iterator[Tag]:
        return (filled(tag, line=shown(line)) for line in self._listing.faults)

    @renderer
    def table(self, request: object, tag: Tag) -> Element | str:
        records = self._listing.sessions
        return _Table(records, self._now, "sessions") if records else ""

    @renderer
    def empty(self, request: object, tag: Tag) -> Tag | str:
        listing = self._listing
        if listing.sessions:
            return ""
        if not listing.is_first or listing.next is not None:
            line = "None on this page."
        elif listing.filters == SessionFilter():
            line = "No session is open."
        else:
            line = "No open session matches."
        return tag.fillSlots(line=line)

    @renderer
    def pager(self, request: object, tag: Tag) -> Tag | str:
        listing, links = self._listing, []
        if not listing.is_first:
            links.append(tags.a("First page", href=query_of(listing.filters)))
        if listing.next is not None:
            url = query_of(listing.filters, listing.next)
            links.append(tags.a("Next page", href=url, rel="next"))
        for link in links:
            link(class_="button")
        return tag.fillSlots(links=links) if links else ""


def _options(
    choices: Iterable[tuple[str, str]], chosen: str, empty: str | None = None
) -> Iterator[Tag]:
    for value, words in [*([("", empty)] if empty else []), *choices]:
        option = tags.option(words, value=value)
        yield option(selected="selected") if value == chosen else option


def _ages() -> list[tuple[str, str]]:
    return [(str(seconds), words) for seconds, words in AGES.items()]


class Filters(Slotted):
    """A form to choose sessions."""

    loader = template("filters")

    def __init__(self, filters: SessionFilter, mounts: Sequence[str]) -> None:
        states = [(ACTIVE, "a packet is arriving")]
        states += [(state, state_words(state)) for state in STATES]
        super().__init__(
            text=filters.text or "",
            directories=_options(
                [(mount, mount) for mount in mounts], filters.directory or "", "all"
            ),
            states=_options(
                states, ACTIVE if filters.active else filters.state or "", "all"
            ),
            idles=_options(
                _ages(), "" if filters.idle is None else f"{filters.idle:g}", "any time"
            ),
        )
        self._filters = filters

    @renderer
    def reset(self, request: object, tag: Tag) -> Tag | str:
        return "" if self._filters == SessionFilter() else tag


class Details(Slotted):
    """One session, and the form that cancels it."""

    loader = template("session")

    def __init__(self, record: SessionRecord, token: str) -> None:
        super().__init__(
            session=record.session,
            file=file_of(record),
            token=token,
            facts=[
                (tags.dt(name), tags.dd(value))
                for name, value in _facts(record).items()
                if value
            ],
        )


def _facts(record: SessionRecord) -> dict[str, str]:
    """What is known of a session; empty if it is not."""
    owner, rate = record.owner, record.rate
    return {
        "Session": record.session,
        "Client's file name": shown(record.file_name or ""),
        "Owner": "anonymous" if owner is None else shown(owner),
        "Authenticated by": shown(record.scheme or ""),
        "Address": shown(record.client or ""),
        "Received": received_of(record),
        "Rate": "" if rate is None else size_rate(rate),
        "State": state_words(record.state),
        "Created": "" if record.created is None else moment(record.created),
        "Last progress": moment(record.last_progress),
        "Requests to the application": number(record.attempts or 0),
    }


class Purge(Slotted):
    """The question whether old sessions are to be cancelled."""

    loader = template("purge")


class Overview(Element):
    """Everything at a glance."""

    loader = template("overview")

    def __init__(self, glance: Glance, listing: Listing, notice: str) -> None:
        super().__init__()
        self._glance = glance
        self._listing = listing
        self._notice = notice

    @renderer
    def notice(self, request: object, tag: Tag) -> Tag | str:
        return tag.fillSlots(line=self._notice) if self._notice else ""

    @renderer
    def plots(self, request: object, tag: Tag) -> Element:
        return Plots(self._glance.rates)

    @renderer
    def busiest(self, request: object, tag: Tag) -> Element:
        return Busiest(self._glance)

    @renderer
    def filters(self, request: object, tag: Tag) -> Element:
        mounts = [one.mount for one in self._glance.directories]
        return Filters(self._listing.filters, mounts)

    @renderer
    def sessions(self, request: object, tag: Tag) -> Element:
        return Sessions(self._listing, self._glance.at)

    @renderer
    def ages(self, request: object, tag: Tag) -> Iterator[Tag]:
        return _options(_ages(), "604800")

    @renderer
    def refusals(self, request: object, tag: Tag) -> Element:
        return Refusals(self._glance)

    @renderer
    def server(self, request: object, tag: Tag) -> Element:
        return Server(self._glance)
