"""
Replies of server applications, at URLs of their own (MC-BUP 1.3.3, 3.2.5).

A reply belongs to its session, and to the user who created it, and is deleted with the
session. Anonymous clients need the session's id, which is random and so a secret.
"""

from __future__ import annotations

from uuid import UUID

from twisted.web.server import Request

from txbits.interfaces import Identity, IStoredFile
from txbits.protocol._fields import LocalProtocolError, format_guid, parse_guid
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import destination_name, session_name
from txbits.web._files import FileResource
from txbits.web._gate import Gate
from txbits.web._origin import Origins

#: The path of replies below a virtual directory, as with IIS.
_ABOVE = ("BITS-Sessions", "Replies")
_NAME = "responsefile.bin"


def reply_url(directory: str, session_id: UUID) -> str:
    """
    The URL of a session's reply.

    :param directory: The URL of the virtual directory.
    """
    # Braces are not allowed in a URL.
    guid = format_guid(session_id).decode("ascii").strip("{}")
    return "/".join([directory, *_ABOVE, f"%7B{guid}%7D", _NAME])


def reply_of(destination: tuple[str, ...]) -> UUID | None:
    """
    The session whose reply has this path; ``None`` if the path is not that of a reply.

    The path is not case-sensitive, as with IIS.
    """
    if len(destination) != len(_ABOVE) + 2:
        return None
    *above, guid, name = destination
    wanted = [one.lower() for one in (*_ABOVE, _NAME)]
    if [one.lower() for one in (*above, name)] != wanted:
        return None
    try:
        return parse_guid(guid.encode("utf-8", "replace"))
    except LocalProtocolError:
        return None


class ReplyResource(FileResource):
    """
    Answers GET and HEAD of a reply.

    :param session_id: The session.
    """

    # It belongs to one client, and must not outlive its session.
    caching = b"private, no-store"

    def __init__(
        self,
        manager: SessionManager,
        gate: Gate,
        caller: Caller,
        origins: Origins,
        session_id: UUID,
    ) -> None:
        session = session_name(session_id, is_secret=gate.hides_ids)
        super().__init__(
            manager, gate, caller, origins, f"the reply of session {session}"
        )
        self.to_log["session"] = session
        self.session_id = session_id

    async def admit(self, request: Request, method: str) -> Caller:
        return await self.gate.admit(
            request,
            self.caller,
            self.origins,
            self._destination,
            "Reply",
            known=self.known,
        )

    async def _destination(self, identity: Identity | None) -> tuple[str, ...]:
        """Where the session uploads to: who may upload there may read its reply."""
        caller = Caller(identity, self.caller.address)
        destination = await self.manager.destination_of(self.session_id, caller)
        self.to_log["destination"] = destination_name(destination)
        return destination

    async def open(self, method: str) -> IStoredFile:
        return await self.manager.open_reply(self.session_id, self.caller)
