"""
Sessions of another process: a view there, and one here that asks it.

Questions and answers are objects for JSON. What carries them is up to who joins the two
ends, for example the connection between a supervisor and its workers::

    view = RemoteSessions(ask)            # here; ask(question) -> Deferred[answer]
    answer = await answered(view, question)     # there
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from txbits._deferreds import deferred
from txbits.admin.sessions import (
    DEFAULT_LIMIT,
    InvalidCursor,
    Purged,
    SessionFilter,
    SessionRecord,
    SessionsPage,
    SessionsView,
)
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.interfaces import Identity
from txbits.sessions import Caller

#: Sends a question, and returns a Deferred that fires with the answer. It fails with
#: BackendError if there is none.
Ask = Callable[[dict[str, Any]], Deferred[dict[str, Any]]]

# In the order in which they are looked for.
_ERRORS: tuple[tuple[str, type[Exception]], ...] = (
    ("no-such-session", NoSuchSession),
    ("invalid-cursor", InvalidCursor),
    ("fault", BackendError),
)

_STOPPING = "stopping"


@frozen(eq=False)
class RemoteSessions:
    """
    The open sessions of another process; see
    :class:`~txbits.admin.sessions.SessionsView`.

    :param ask: Asks the other process.
    """

    _ask: Ask

    @deferred
    async def page(
        self,
        filters: SessionFilter,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> SessionsPage:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        said = await self._answer(
            "page", filters=filters.as_json(), cursor=cursor, limit=limit
        )
        return SessionsPage.from_json(said)

    @deferred
    async def get(self, session_id: str) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        return SessionRecord.from_json(await self._answer("get", session=session_id))

    @deferred
    async def cancel(self, session_id: str, operator: Caller) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        said = await self._answer(
            "cancel", session=session_id, operator=_written(operator)
        )
        return SessionRecord.from_json(said)

    @deferred
    async def purge(
        self,
        filters: SessionFilter,
        operator: Caller,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Purged:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        filters.required_idle()
        said = await self._answer(
            "purge",
            filters=filters.as_json(),
            operator=_written(operator),
            cursor=cursor,
            limit=limit,
        )
        return Purged.from_json(said)

    async def _answer(self, act: str, **said: Any) -> Mapping[str, Any]:
        answer = await self._ask({"act": act, **said})
        if (error := answer.get("error")) is None:
            good: Mapping[str, Any] = answer["good"]
            return good
        text = str(answer["text"])
        if error == _STOPPING:
            raise ServerStopping(text, answer["retry_after"])
        raise dict(_ERRORS)[error](text)


@deferred
async def answered(view: SessionsView, question: Mapping[str, Any]) -> dict[str, Any]:
    """
    Answer a question of :class:`RemoteSessions`.

    :param view: Knows the answer.
    :param question: What was asked. It comes from a process that is trusted.
    :returns: A Deferred that fires with the answer.
    """
    try:
        return {"good": await _good(view, question)}
    except ServerStopping as error:
        return {
            "error": _STOPPING,
            "text": str(error),
            "retry_after": error.retry_after,
        }
    except (BackendError, InvalidCursor) as error:
        kind = next(name for name, one in _ERRORS if isinstance(error, one))
        return {"error": kind, "text": str(error)}


async def _good(view: SessionsView, question: Mapping[str, Any]) -> dict[str, Any]:
    act = question["act"]
    if act == "get":
        return (await view.get(question["session"])).as_json()
    if act == "cancel":
        operator = _read(question["operator"])
        return (await view.cancel(question["session"], operator)).as_json()
    filters = SessionFilter.from_json(question["filters"])
    cursor, limit = question["cursor"], question["limit"]
    if act == "page":
        return (await view.page(filters, cursor, limit)).as_json()
    operator = _read(question["operator"])
    return (await view.purge(filters, operator, cursor, limit)).as_json()


def _written(operator: Caller) -> dict[str, Any]:
    return {
        "user": operator.user,
        "scheme": operator.scheme,
        "address": operator.address,
    }


def _read(said: Mapping[str, Any]) -> Caller:
    identity = None
    if said["user"] is not None:
        identity = Identity(said["user"], said["scheme"] or "")
    return Caller(identity, said["address"])
