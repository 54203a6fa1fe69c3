"""
What is served on the operator's listener, and to load balancers.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource

from txbits._workers import Worker
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
from txbits.service._whole import Whole
from txbits.service.settings import Configuration
from txbits.sessions import SessionManager
from txbits.web import BITSSite, Limits
from txbits.web.mounts import Mounts

if TYPE_CHECKING:
    from txbits.admin.page import Glance

#: An operator's tools need few connections, and send nothing longer than a form.
_LIMITS = Limits(max_connections=100, max_other_body=16 << 10)


@frozen
class Here:
    """
    What one process can tell the operator.

    :ivar figures: Where the metrics are read.
    :ivar sessions: Its sessions.
    :ivar glance: Gathers what is going on.
    """

    figures: Figures
    sessions: SessionsView
    glance: Callable[[], Glance]


@define(eq=False)
class Admin:
    """
    What is served to the operator, and to load balancers.

    :param configuration: All settings of the server; they may change.
    :param directories: The virtual directories; this list may change.
    :param whole: If this process is one of several, what all of them can tell together.
    :ivar health: Whether the server can take uploads.
    """

    configuration: Configuration
    directories: list[Served]
    _whole: Whole | None = None
    health: Health = field(init=False)

    @health.default
    def _new_health(self) -> Health:
        return Health(self.managers)

    @property
    def _worker(self) -> Worker:
        return Worker() if self._whole is None else self._whole.worker

    def site(
        self,
        reactor: Any,
        figures: Figures,
        everywhere: Callable[[], Deferred[Any]] | None = None,
    ) -> tuple[BITSSite, Sequence[Activity], Here]:
        """
        Make the site for the operator's listener.

        :param figures: Where the metrics are read.
        :param everywhere: Reads those of all workers, if this process is one of them.
        :returns: The site, what goes on while it is served, and what this process can
            tell others.
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
        host, whole, worker = socket.gethostname(), self._whole, self._worker
        sampler = Sampler(figures, clock, worker)
        here = Here(
            figures,
            CombinedSessions(self.sessions),
            Gatherer(
                *(figures, self.health, sampler, self._backends, wall_of(reactor)),
                name=host if whole is None else whole.name,
                worker=worker,
            ),
        )
        sessions: SessionsView = here.sessions
        glance: Callable[[], Glance | Awaitable[Glance]] = here.glance
        tokens = FormTokens(clock.seconds)
        if whole is not None:
            sessions, tokens = whole.sessions(sessions), whole.tokens()
            glance = partial(whole.glance, here.glance)
        page = OperatorPage(glance, sessions, tokens, clock, host, self._admission)
        routes = [*page.routes(), *SessionsAPI(sessions).routes()]
        root = AdminResource(pages, self._operators, tokens, routes)
        site = BITSSite(root, reactor=reactor, limits=_LIMITS)
        return site, [sampler, page.streams], here

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
            mount: DirectorySessions(mount, manager, self._worker)
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
