"""
What is served on the operator's listener, and to load balancers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from txbits.admin import AdminResource, Health, HealthResource
from txbits.admin.api import SessionsAPI
from txbits.admin.combined import CombinedSessions
from txbits.admin.directories import DirectorySessions
from txbits.admin.figures import Activity, Figures
from txbits.admin.pages import MakePage
from txbits.admin.resource import Operators
from txbits.admin.sessions import SessionsView
from txbits.admin.tokens import FormTokens
from txbits.clocks import steady, wall_of
from txbits.errors import InvalidSetting
from txbits.service._kinds import mount_segments
from txbits.service._operators import admin_directory
from txbits.service._served import Served
from txbits.service.settings import Configuration
from txbits.sessions import SessionManager
from txbits.web import BITSSite, Limits
from txbits.web.mounts import Mounts

#: An operator's tools need few connections, and send nothing longer than a form.
_LIMITS = Limits(max_connections=100, max_other_body=16 << 10)


@define(eq=False)
class Admin:
    """
    What is served to the operator, and to load balancers.

    :param configuration: All settings of the server; they may change.
    :param directories: The virtual directories; this list may change.
    :ivar health: Whether the server can take uploads.
    """

    configuration: Configuration
    directories: list[Served]
    health: Health = field(init=False)

    @health.default
    def _new_health(self) -> Health:
        return Health(self.managers)

    def site(
        self,
        reactor: Any,
        figures: Figures,
        everywhere: Callable[[], Deferred[Any]] | None = None,
    ) -> tuple[BITSSite, Sequence[Activity]]:
        """
        Make the site for the operator's listener.

        :param figures: Where the metrics are read.
        :param everywhere: Reads those of all workers, if this process is one of them.
        :returns: The site, and what goes on while it is served.
        """
        # Not earlier: a server without this listener does not need them.
        from txbits.admin.metrics import MetricsPage
        from txbits.admin.page import Gatherer, OperatorPage, Sampler

        clock = steady(reactor)
        pages: dict[bytes, MakePage] = {
            b"/health/live": self.health.live,
            b"/health/ready": self.health.ready,
            b"/metrics": MetricsPage(figures, clock, everywhere),
        }
        sessions = CombinedSessions(self.sessions)
        tokens = FormTokens(clock.seconds)
        sampler, host = Sampler(figures, clock), socket.gethostname()
        glance = Gatherer(
            *(figures, self.health, sampler, self._backends, wall_of(reactor)),
            name=host,
        )
        page = OperatorPage(glance, sessions, tokens, clock, host, self._admission)
        routes = [*page.routes(), *SessionsAPI(sessions).routes()]
        root = AdminResource(pages, self._operators, tokens, routes)
        site = BITSSite(root, reactor=reactor, limits=_LIMITS)
        return site, [sampler, page.streams]

    def _backends(self) -> dict[str, str]:
        """The descriptions of the backends, by the mounts of their directories."""
        return {one.directory.mount: one.directory.backend for one in self.directories}

    def _admission(self) -> Sequence[object]:
        """What decides who may look: the same objects as long as that is the same."""
        operators = self._operators()
        if operators is None:
            return ()
        return (operators.users, *operators.authenticators())

    def sessions(self) -> dict[str, SessionsView]:
        """The open sessions of the directories of now, by their mounts."""
        return {
            mount: DirectorySessions(mount, manager)
            for mount, manager in self.managers()
        }

    def serve(self, mounts: Mounts) -> None:
        """Let the listeners of uploads serve what there is now."""
        pages: dict[tuple[bytes, ...], IResource] = {}
        if (path := self.configuration.health_path) is not None:
            pages[mount_segments(path) or (b"",)] = HealthResource(self.health)
        mounts.replace(
            {one.directory.segments: one.resource for one in self.directories}, pages
        )

    def managers(self) -> Iterable[tuple[str, SessionManager]]:
        """The virtual directories of now: their mounts, and what settles packets."""
        return [(one.directory.mount, one.manager) for one in self.directories]

    def _operators(self) -> Operators | None:
        users = self.configuration.admin_users
        return Operators(users, self._authenticators) if users else None

    def _authenticators(self) -> Sequence[Any]:
        try:
            wanted = admin_directory(self.configuration)
        except InvalidSetting:
            # It was removed, and what is to replace it requires a restart.
            return ()
        for served in self.directories:
            if served.directory.segments == wanted.segments:
                return served.resource.gate.authenticators
        return ()
