"""
Replies of server applications, at URLs of their own (MC-BUP 1.3.3, 3.2.5).

A reply belongs to its session, and so to the user who created that; it goes with it.
Whoever has no name has the session's id, which is a secret as long as that is random.
"""

from __future__ import annotations

from uuid import UUID

from txbits.interfaces import IStoredFile
from txbits.protocol._fields import LocalProtocolError, format_guid, parse_guid
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import session_name
from txbits.web._files import FileResource

#: Where replies stand below a virtual directory, as IIS has them.
_ABOVE = ("BITS-Sessions", "Replies")
_NAME = "responsefile.bin"


def reply_url(directory: str, session_id: UUID) -> str:
    """
    The URL of a session's reply.

    :param directory: The URL of the virtual directory.
    """
    # Braces have no place in a URL.
    guid = format_guid(session_id).decode("ascii").strip("{}")
    return "/".join([directory, *_ABOVE, f"%7B{guid}%7D", _NAME])


def reply_of(destination: tuple[str, ...]) -> UUID | None:
    """
    The session whose reply stands at a path; ``None`` if it is no such path.

    Case does not matter, as for the paths of IIS.
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

    :param session_id: Whose.
    """

    # It is one client's, and is to be gone when its session is.
    caching = b"private, no-store"

    def __init__(
        self, manager: SessionManager, session_id: UUID, caller: Caller
    ) -> None:
        super().__init__(
            manager, caller, f"the reply of session {session_name(session_id)}"
        )
        self.session_id = session_id

    async def open(self, method: str) -> IStoredFile:
        return await self.manager.open_reply(self.session_id, self.caller)
