"""
What the paths of the operator's page answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.template import Element

from txbits.admin.page.glance import Glance
from txbits.admin.page.listing import (
    AGES,
    MOST_SESSIONS,
    Busiest,
    Details,
    Listing,
    Overview,
    Purge,
    Sessions,
)
from txbits.admin.page.rendering import ACTIVE, FOLDER, Document, Live, Message, flat
from txbits.admin.page.server import Health, Plots, Refusals, Server
from txbits.admin.page.streams import Streams
from txbits.admin.page.words import plural
from txbits.admin.pages import Page, see_other
from txbits.admin.routes import Route, Visit
from txbits.admin.sessions import (
    STATES,
    InvalidCursor,
    SessionFilter,
    SessionRecord,
    SessionsView,
)
from txbits.admin.tokens import FormTokens
from txbits.errors import BackendError, NoSuchSession, ServerStopping

#: A view looks at a limited number of sessions for each of its pages. So many of these
#: are asked for until there is something to show.
_MOST_LOOKS = 10

#: Seconds that a request cancels old sessions before it answers.
_PURGE_SECONDS = 20.0

#: How many lines about faults are shown.
_MOST_FAULTS = 10

#: Listing the sessions again may take so much of the time.
_LISTING_SHARE = 0.1

#: Why sessions cannot be listed or ended now.
_FAILURES = (BackendError, ServerStopping)

_HTML = b"text/html; charset=utf-8"

#: Only what this site sends is used, and nobody shows it within another page.
_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = (
    (b"Content-Security-Policy", _POLICY),
    (b"Referrer-Policy", b"same-origin"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)

_FILES = {
    "style.css": b"text/css; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}

#: The choices of the form, as it sends them.
_AGES = frozenset(map(str, AGES))

_GUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@frozen
class Query:
    """
    Which sessions a page shows.

    :ivar filters: The sessions.
    :ivar cursor: Where to begin.
    """

    filters: SessionFilter = field(factory=SessionFilter)
    cursor: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, str]) -> Query:
        """Read the fields of the form, and ignore values that it does not offer."""
        state = said.get("state")
        idle = said.get("idle", "")
        return cls(
            SessionFilter(
                directory=said.get("directory") or None,
                state=state if state in STATES else None,
                active=True if state == ACTIVE else None,
                idle=float(idle) if _is_age(idle) else None,
                text=said.get("text", "").strip()[:200] or None,
            ),
            said.get("cursor") or None,
        )


def _is_age(text: str) -> bool:
    return text in _AGES


@define
class _Listed:
    """Sessions that were listed, when, and how long that took."""

    listing: Listing
    at: float
    took: float


@define(eq=False)
class OperatorPage:
    """
    The operator's page.

    :param glance: Gathers what is going on.
    :param sessions: Lists and cancels the sessions.
    :param tokens: Makes the tokens of forms.
    :param clock: The steady clock.
    :param host: The name of the machine.
    :param admission: As for :class:`~txbits.admin.page.streams.Streams`.
    :ivar streams: The browsers that wait for events.
    """

    _glance: Callable[[], Glance | Awaitable[Glance]]
    _sessions: SessionsView
    _tokens: FormTokens
    _clock: IReactorTime
    _host: str
    _admission: Callable[[], Sequence[object]]
    streams: Streams = field(init=False)
    _listed: dict[Query, _Listed] = field(factory=dict, init=False)
    _written: dict[str, tuple[object, bytes]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.streams = Streams(self._clock, self._parts, self._admission)

    def routes(self) -> list[Route]:
        """What is at which path."""
        return [
            Route("/", {b"GET": self._overview}),
            Route("/events", {b"GET": self._events}),
            Route("/sessions/{session}", {b"GET": self._details}),
            Route("/sessions/{session}/cancel", {b"POST": self._cancel}),
            Route("/purge", {b"GET": self._ask_to_purge, b"POST": self._purge}),
            *(Route(f"/{name}", {b"GET": _file(name)}) for name in _FILES),
        ]

    # Pages

    async def _overview(self, visit: Visit) -> Page:
        query = Query.of(visit.query)
        try:
            listing = await self._list(query)
        except InvalidCursor:
            return see_other(b"/")
        glance = await self._look()
        notice = await self._notice(visit.query.get("gone", ""))
        content = Overview(glance, listing, notice)
        return await self._page("Overview", content, (Health(glance), Live()))

    async def _notice(self, session: str) -> str:
        """Tell that a session is gone, if that is so: anybody can make a link."""
        if not _GUID.fullmatch(session):
            return ""
        try:
            await self._sessions.get(session)
        except NoSuchSession:
            return f"Session {session.upper()} is no longer open."
        except _FAILURES:
            # The page tells that the backend fails.
            return ""
        return ""

    async def _details(self, visit: Visit) -> Page:
        try:
            record = await self._sessions.get(visit.parameters["session"])
        except NoSuchSession:
            return await self._no_session()
        except _FAILURES as error:
            return await self._message("The session cannot be shown", [str(error)], 503)
        token = self._tokens.make(visit.caller)
        return await self._page("Session", Details(record, token))

    async def _no_session(self) -> Page:
        lines = ["It was closed or cancelled, or it has expired."]
        return await self._message("No such session", lines, 404)

    async def _cancel(self, visit: Visit) -> Page:
        session = visit.parameters["session"]
        try:
            record = await self._sessions.cancel(session, visit.caller)
        except NoSuchSession:
            return await self._no_session()
        except _FAILURES as error:
            lines = ["Part of it is left. Cancel it again.", str(error)]
            return await self._message("The session was not cancelled", lines, 503)
        return see_other(f"/?gone={record.session}".encode())

    async def _ask_to_purge(self, visit: Visit) -> Page:
        idle = visit.query.get("idle", "")
        if not _is_age(idle):
            return see_other(b"/")
        found = await self._list(Query(SessionFilter(idle=float(idle))))
        count, age = len(found.sessions), AGES[int(idle)]
        if not count and found.next is None:
            lines = [f"No session has been without progress for {age}.", *found.faults]
            return await self._message("Cancel old sessions", lines)
        some = plural(count, "session")
        if found.next is not None:
            some = f"at least {some}"
        question = f"Cancel {some} without progress for {age}?"
        token = self._tokens.make(visit.caller)
        content = Purge(question=question, idle=idle, token=token)
        return await self._page("Cancel old sessions", content)

    async def _purge(self, visit: Visit) -> Page:
        idle = visit.form.get("idle", "")
        if not _is_age(idle):
            return see_other(b"/")
        filters = SessionFilter(idle=float(idle))
        until = self._clock.seconds() + _PURGE_SECONDS
        count, faults, cursor = 0, list[str](), None
        while True:
            try:
                done = await self._sessions.purge(filters, visit.caller, cursor)
            except _FAILURES as error:
                faults.append(str(error))
                break
            count += len(done.sessions)
            faults += done.faults[: _MOST_FAULTS - len(faults)]
            cursor = done.next
            if cursor is None or self._clock.seconds() > until:
                break
            await deferLater(self._clock, 0)
        lines = [f"{plural(count, 'session')} cancelled.", *faults]
        if cursor is not None:
            lines.append("There are more. Cancel old sessions again.")
        return await self._message("Old sessions", lines)

    async def _message(
        self, title: str, lines: Sequence[str], status: int = 200
    ) -> Page:
        return await self._page(title, Message(title, lines), status=status)

    async def _page(
        self,
        title: str,
        content: Element,
        head: Sequence[Element] = (),
        status: int = 200,
    ) -> Page:
        body = await flat(Document(title, self._host, content, head))
        return Page(b"<!DOCTYPE html>\n" + body, _HTML, status, _HEADERS)

    # Events

    def _events(self, visit: Visit) -> Page | None:
        if visit.request.method == b"HEAD":
            return Page(b"", b"text/event-stream; charset=utf-8")
        if self.streams.add(visit.request, Query.of(visit.query)):
            return None
        return Page(b"too many pages are open\n", status=503)

    async def _parts(self, query: object) -> dict[str, bytes]:
        """Make the parts of the page that change."""
        assert isinstance(query, Query)  # noqa: S101
        glance = await self._look()
        listing = await self._list_seldom(query)
        state = (glance.directories, glance.processes, glance.certificates)
        return {
            "health": await flat(Health(glance)),
            "plots": await self._kept("plots", glance.rates, Plots(glance.rates)),
            "busiest": await flat(Busiest(glance)),
            "sessions": await flat(Sessions(listing, glance.at)),
            "refusals": await self._kept("refusals", glance.refusals, Refusals(glance)),
            # Of certificates, it tells the days that are left.
            "server": await self._kept(
                "server", (*state, glance.at // 3600), Server(glance)
            ),
        }

    async def _kept(self, name: str, key: object, part: Element) -> bytes:
        """Write a part, unless that was done for the same key."""
        known = self._written.get(name)
        if known is not None and known[0] == key:
            return known[1]
        written = await flat(part)
        self._written[name] = key, written
        # Uploads get their turns.
        await deferLater(self._clock, 0)
        return written

    async def _look(self) -> Glance:
        glance = self._glance()
        return glance if isinstance(glance, Glance) else await glance

    # Sessions

    async def _list(self, query: Query) -> Listing:
        """
        List sessions.

        :raises InvalidCursor: If the query has another one.
        """
        found: list[SessionRecord] = []
        faults: list[str] = []
        cursor = query.cursor
        for _ in range(_MOST_LOOKS):
            try:
                page = await self._sessions.page(
                    query.filters, cursor, MOST_SESSIONS - len(found)
                )
            except _FAILURES as error:
                faults.append(str(error))
                break
            found += page.sessions
            faults += page.faults
            cursor = page.next
            if cursor is None or len(found) >= MOST_SESSIONS:
                break
            # Uploads get their turns.
            await deferLater(self._clock, 0)
        return Listing(
            found, query.filters, query.cursor is None, cursor, faults[:_MOST_FAULTS]
        )

    async def _list_seldom(self, query: Query) -> Listing:
        """List sessions, unless that takes long and was done lately."""
        now = self._clock.seconds()
        self._listed = {
            one: listed
            for one, listed in self._listed.items()
            if now - listed.at < listed.took / _LISTING_SHARE
        }
        if query in self._listed:
            return self._listed[query].listing
        try:
            listing = await self._list(query)
        except InvalidCursor:
            # The server was restarted with other directories.
            listing = Listing([], query.filters, is_first=False)
        took = self._clock.seconds() - now
        self._listed[query] = _Listed(listing, now, took)
        return listing


def _file(name: str) -> Callable[[Visit], Page]:
    page = Page((FOLDER / name).read_bytes(), _FILES[name], headers=_HEADERS)
    return lambda visit: page
