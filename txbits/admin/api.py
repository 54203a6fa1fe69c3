"""
The JSON interface below ``/api/``; see docs/reference/sessions-api.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from attrs import define, fields
from twisted.logger import Logger

from txbits._units import parse_duration
from txbits.admin.pages import Page
from txbits.admin.routes import Route, Visit
from txbits.admin.sessions import (
    DEFAULT_LIMIT,
    MOST_LIMIT,
    STATES,
    InvalidCursor,
    SessionFilter,
    SessionsView,
)
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.sessions.naming import shown

_log = Logger()

_JSON = b"application/json"

#: Seconds after which to try again when the store fails.
_RETRY_AFTER = 30

_LIMIT = re.compile("[0-9]{1,9}")

_FLAGS = {"true": True, "false": False}


class InvalidQuery(ValueError):
    """A query is invalid; the text is one line for its sender."""


def _number(text: str) -> int:
    # Not what has more digits, of which int() takes only so many.
    number = int(text) if _LIMIT.fullmatch(text) else 0
    if not 1 <= number <= MOST_LIMIT:
        raise InvalidQuery(f"limit: must be a number from 1 to {MOST_LIMIT}")
    return number


def filters_of(query: Mapping[str, str]) -> SessionFilter:
    """
    Read filters from a query; other parameters are left to the caller.

    :raises InvalidQuery: If one is invalid.
    """
    said: dict[str, Any] = {
        one.name: query[one.name]
        for one in fields(SessionFilter)
        # A form sends its empty fields, too.
        if query.get(one.name) or (one.name == "owner" and "owner" in query)
    }
    if "idle" in said:
        try:
            said["idle"] = parse_duration(said["idle"])
        except ValueError as error:
            raise InvalidQuery(f"idle: {error}") from None
    if "active" in said:
        if said["active"] not in _FLAGS:
            raise InvalidQuery("active: must be true or false")
        said["active"] = _FLAGS[said["active"]]
    if "state" in said and said["state"] not in STATES:
        raise InvalidQuery(f"state: must be one of {', '.join(STATES)}")
    return SessionFilter(**said)


_PARAMETERS = {*(one.name for one in fields(SessionFilter)), "cursor", "limit"}


def _asked(query: Mapping[str, str]) -> tuple[SessionFilter, str | None, int]:
    for name in query:
        if name not in _PARAMETERS:
            # A filter with a typing error must not let more sessions be purged.
            raise InvalidQuery(
                f"{shown(name)}: unknown parameter; there are: "
                f"{', '.join(sorted(_PARAMETERS))}"
            )
    limit = _number(query["limit"]) if "limit" in query else DEFAULT_LIMIT
    return filters_of(query), query.get("cursor"), limit


def json_page(said: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Page:
    """Make a page of JSON."""
    # In ASCII: names by clients may be invalid UTF-8.
    return Page(json.dumps(said).encode() + b"\n", _JSON, status, headers)


def _error(text: str, status: int, *headers: tuple[bytes, bytes]) -> Page:
    return json_page({"error": text}, status, *headers)


Handler = Callable[["SessionsAPI", Visit], Awaitable[Page]]


def _answers(handler: Handler) -> Handler:
    """Answer with JSON also if a handler fails."""

    @wraps(handler)
    async def answer(self: SessionsAPI, visit: Visit) -> Page:
        try:
            return await handler(self, visit)
        except (InvalidQuery, InvalidCursor) as error:
            return _error(str(error), 400)
        except NoSuchSession:
            return _error("no such session", 404)
        except ServerStopping as error:
            seconds = b"%d" % error.retry_after
            return _error(str(error), 503, (b"Retry-After", seconds))
        except BackendError as error:
            _log.warn(
                "{path} failed: {reason}",
                path=shown(visit.request.path.decode("latin-1")),
                reason=shown(str(error)),
            )
            return _error(str(error), 503, (b"Retry-After", b"%d" % _RETRY_AFTER))

    return answer


@define(eq=False)
class SessionsAPI:
    """
    The interface of open sessions.

    :param view: The sessions.
    """

    _view: SessionsView

    def routes(self) -> list[Route]:
        """The paths that it answers."""
        return [
            Route("/api/sessions", {b"GET": self.list, b"DELETE": self.purge}),
            Route(
                "/api/sessions/{session}", {b"GET": self.show, b"DELETE": self.cancel}
            ),
        ]

    @_answers
    async def list(self, visit: Visit) -> Page:
        """List sessions."""
        filters, cursor, limit = _asked(visit.query)
        return json_page((await self._view.page(filters, cursor, limit)).as_json())

    @_answers
    async def show(self, visit: Visit) -> Page:
        """Show one."""
        record = await self._view.get(visit.parameters["session"])
        return json_page(record.as_json())

    @_answers
    async def cancel(self, visit: Visit) -> Page:
        """Cancel one."""
        record = await self._view.cancel(visit.parameters["session"], visit.caller)
        return json_page(record.as_json())

    @_answers
    async def purge(self, visit: Visit) -> Page:
        """Cancel sessions that have made no progress for some time."""
        filters, cursor, limit = _asked(visit.query)
        if filters.idle is None:
            raise InvalidQuery("idle: required, such as idle=7d")
        for name, value in visit.query.items():
            if not value and name != "owner":
                # Otherwise a variable of a script that is not set would let more
                # sessions be cancelled.
                raise InvalidQuery(f"{name}: must not be empty")
        purged = await self._view.purge(filters, visit.caller, cursor, limit)
        return json_page(purged.as_json())
