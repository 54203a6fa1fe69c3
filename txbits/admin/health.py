"""
Whether the server can take uploads, for load balancers and service managers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from attrs import Factory, define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txbits.admin.pages import READING, Page, not_allowed, write
from txbits.sessions import SessionManager


@define(eq=False)
class Health:
    """
    Whether the server can take uploads.

    :param managers: Returns the present virtual directories: their mounts, and what
        settles their packets.
    :ivar state: What the server as a whole is doing.
    :ivar elsewhere: If this process is one of several, why others would refuse uploads.
    """

    managers: Callable[[], Iterable[tuple[str, SessionManager]]]
    state: Literal["starting", "running", "stopping"] = "starting"
    elsewhere: list[str] = Factory(list)

    def obstacles(self) -> list[str]:
        """
        Tell why uploads would be refused.

        :returns: A line for each reason; none if the server is ready.
        """
        return [*self.obstacles_here(), *self.elsewhere]

    def obstacles_here(self) -> list[str]:
        """The same, but for what other processes of the server have to say."""
        if self.state != "running":
            return [self.state]
        return [
            f"{mount}: {trouble}"
            for mount, manager in self.managers()
            for trouble in manager.troubles()
        ]

    def ready(self) -> Page:
        """The page for who wants to know whether to send uploads here, and why not."""
        obstacles = self.obstacles()
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
            page = not_allowed()
        elif self._health.obstacles():
            page = Page(b"not ready\n", status=503)
        else:
            page = Page(b"ready\n")
        return write(request, page)
