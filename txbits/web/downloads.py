"""
Downloads of published files (MC-BUP 2.3, 3.5).
"""

from __future__ import annotations

from txbits.interfaces import IAccessPolicy, IDownloadable, IRedirecting, IStoredFile
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import destination_name
from txbits.web._files import FileResource, Redirect


class DownloadResource(FileResource):
    """
    Answers GET and HEAD of a destination.

    :param policy: Permits it; ``None`` permits everything.
    :param destination: The requested file.
    """

    def __init__(
        self,
        manager: SessionManager,
        policy: IAccessPolicy | None,
        destination: tuple[str, ...],
        caller: Caller,
    ) -> None:
        super().__init__(manager, caller, destination_name(destination))
        self.policy = policy
        self.destination = destination
        if policy is not None or caller.user is not None:
            # A shared cache distinguishes users by Authorization only.
            self.caching = b"private"

    async def open(self, method: str) -> IStoredFile | Redirect:
        self.manager.require_running()
        if self.policy is not None:
            await self.policy.check(self.caller.user, self.destination, method)
        backend = self.manager.backend
        if IRedirecting.providedBy(backend):
            location = await IRedirecting(backend).location(self.destination, method)
            if location is not None:
                return Redirect(location)
        return await IDownloadable(backend).open_file(self.destination)
