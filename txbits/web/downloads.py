"""
Downloads of published files (MC-BUP 2.3, 3.5).
"""

from __future__ import annotations

from twisted.web.server import Request

from txbits.interfaces import IDownloadable, IRedirecting, IStoredFile
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import destination_name
from txbits.web._files import FileResource, Redirect
from txbits.web._gate import Gate
from txbits.web._origin import Origins


class DownloadResource(FileResource):
    """
    Answers GET and HEAD of a destination.

    :param destination: The requested file.
    """

    def __init__(
        self,
        manager: SessionManager,
        gate: Gate,
        caller: Caller,
        origins: Origins,
        destination: tuple[str, ...],
    ) -> None:
        super().__init__(manager, gate, caller, origins, destination_name(destination))
        self.destination = destination
        self.to_log["destination"] = self.name
        if not gate.is_open or caller.user is not None:
            # A shared cache distinguishes users by Authorization only.
            self.caching = b"private"

    async def admit(self, request: Request, method: str) -> Caller:
        return await self.gate.admit(
            request,
            self.caller,
            self.origins,
            self.destination,
            method,
            known=self.known,
        )

    async def open(self, method: str) -> IStoredFile | Redirect:
        self.manager.require_running()
        backend = self.manager.backend
        if IRedirecting.providedBy(backend):
            location = await IRedirecting(backend).location(self.destination, method)
            if location is not None:
                return Redirect(location)
        return await IDownloadable(backend).open_file(self.destination)
