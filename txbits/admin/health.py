"""
Whether the server can take uploads, for load balancers and service managers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._deferreds import Shared, begun, deferred
from txbits.admin.pages import READING, Page, not_allowed, write
from txbits.sessions import SessionManager


@define(eq=False)
class Health:
    """
    Whether the server can take uploads.

    :param managers: Returns the present virtual directories: their mounts, and what
        settles their packets.
    :param everywhere: If this process is one of several, asks all of them for their
        :meth:`obstacles`. Its Deferred does not fail.
    :ivar state: What this process is doing.
    """

    managers: Callable[[], Iterable[tuple[str, SessionManager]]]
    _everywhere: Callable[[], Deferred[list[str]]] | None = None
    state: Literal["starting", "running", "stopping"] = field(
        default="starting", init=False
    )
    _asking: Shared[list[str]] = field(factory=Shared, init=False)

    def obstacles(self) -> list[str]:
        """
        Tell why uploads would be refused.

        :returns: A line for each reason; none if this process is ready.
        """
        if self.state != "running":
            return [self.state]
        return [
            f"{mount}: {trouble}"
            for mount, manager in self.managers()
            for trouble in manager.troubles()
        ]

    @deferred
    async def all_obstacles(self) -> list[str]:
        """
        The same, for the server as a whole.

        :returns: A Deferred that fires with the lines; it does not fail.
        """
        if self._everywhere is None or self.state != "running":
            return self.obstacles()
        # Anybody may ask, and as often.
        return await self._asking.run(self._ask)

    async def _ask(self) -> list[str]:
        assert self._everywhere is not None  # noqa: S101 - checked by the caller
        return await self._everywhere()

    @deferred
    async def ready(self) -> Page:
        """
        Make the page for who wants to know whether to send uploads here, and why not.

        :returns: A Deferred that fires with it.
        """
        obstacles = await self.all_obstacles()
        text = "".join(f"{line}\n" for line in obstacles or ["ready"])
        return Page(text.encode(), status=503 if obstacles else 200)

    def live(self) -> Page:
        """The page for who wants to know whether the process still answers."""
        return Page(b"live\n")


class HealthResource(Resource):
    """
    Answers on the listeners of uploads whether the server is ready. Since anybody may
    ask there, it does not tell why not.

    :param health: Knows it.
    """

    isLeaf = True

    def __init__(self, health: Health) -> None:
        super().__init__()
        self._health = health

    def render(self, request: Request) -> int:
        if request.method not in READING:
            return write(request, not_allowed())
        begun(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        if await self._health.all_obstacles():
            page = Page(b"not ready\n", status=503)
        else:
            page = Page(b"ready\n")
        write(request, page)
