"""
Virtual directories as they are served: what a directory of the settings becomes.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from txbits.backends import backend_from_description
from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IExclusive, INotifier
from txbits.service._abilities import notifier_of, refuse_unable
from txbits.service.settings import Directory
from txbits.web import BITSResource


class IManager(Protocol):
    """What the service needs of a :class:`~txbits.sessions.SessionManager`."""

    @property
    def backend(self) -> IBackend:
        """Where the sessions are kept."""

    @property
    def notifier(self) -> INotifier | None:
        """What tells the server application, if there is one."""

    def start(self) -> Deferred[None]:
        """Get ready."""

    def stop(self) -> Deferred[None]:
        """Bring everything to an end."""


@define(eq=False)
class Served:
    """
    A virtual directory as it is served.

    :ivar directory: What the settings say of it.
    :ivar resource: Answers for its URLs: a :class:`~txbits.web.BITSResource`.
    """

    directory: Directory
    resource: Any

    @property
    def manager(self) -> IManager:
        """What settles its packets."""
        manager: IManager = self.resource.manager
        return manager

    @property
    def where(self) -> str:
        """What an error message about its backend begins with."""
        return f"{self.directory.where}backend: {self.directory.backend}"

    def reconfigure(
        self,
        directory: Directory,
        trusted_proxies: tuple[str, ...],
        notifier: INotifier | None,
    ) -> Deferred[None]:
        """
        Go on as the settings say now.

        :param trusted_proxies: As in :class:`~txbits.web.BITSResource`.
        :param notifier: Tells its server application.
        :returns: As of :meth:`txbits.web.BITSResource.reconfigure`.
        """
        changed: Deferred[None] = self.resource.reconfigure(
            directory.settings,
            notifier=notifier,
            public_url=directory.public_url,
            trusted_proxies=trusted_proxies,
            name=directory.mount,
        )
        return changed


@define(eq=False)
class Builder:
    """
    Makes what serves virtual directories. Starts nothing.

    :param reactor: What they are to use.
    """

    reactor: Any
    _started_in: str = field(factory=os.getcwd, init=False)
    _made: list[tuple[Directory, IBackend]] = field(factory=list, init=False)

    def begin_anew(self) -> None:
        """Forget what was made: places that were in use may be in use again."""
        self._made.clear()

    def build(self, directory: Directory, trusted_proxies: tuple[str, ...]) -> Served:
        """
        Make all that serves a directory.

        :param trusted_proxies: As in :class:`~txbits.web.BITSResource`.
        :raises InvalidSetting: With a whole line, if something cannot be used.
        """
        backend = self._backend(directory)
        self._refuse_disputes(directory, backend)
        notifier = notifier_of(directory, self.reactor)
        refuse_unable(directory, backend, notifier)
        try:
            resource = BITSResource(
                backend,
                directory.settings,
                notifier=notifier,
                reactor=self.reactor,
                public_url=directory.public_url,
                trusted_proxies=trusted_proxies,
                name=directory.mount,
            )
        except InvalidSetting as error:
            # The rest was looked at before.
            raise InvalidSetting(f"{directory.where}public-url: {error}") from None
        return Served(directory, resource)

    def try_out(self, directory: Directory) -> None:
        """
        Look whether a new start could make a directory.

        :raises InvalidSetting: With a whole line, if not.
        """
        notifier = notifier_of(directory, self.reactor)
        refuse_unable(directory, self._backend(directory), notifier)

    def takes_a_new_start(self, directory: Directory, served: Served) -> bool:
        """
        Find out whether a directory that has no server application can have one now.

        Some backends stage uploads in another way where an application is told of
        them, and are told so when they are made.

        :raises InvalidSetting: With a whole line, if a new start would not help.
        """
        if directory.notification is None or served.directory.notification is not None:
            return False
        notifier = notifier_of(directory, self.reactor)
        try:
            refuse_unable(directory, served.manager.backend, notifier)
        except InvalidSetting:
            self.try_out(directory)
            return True
        return False

    def context(self, directory: Directory) -> BackendContext:
        """What the backend of a directory is told besides its description."""
        notifies = directory.notification is not None
        return BackendContext(self.reactor, directory.fsync, notifies, self._started_in)

    def check(self, directory: Directory, served: Served) -> INotifier | None:
        """
        Look whether a directory that is being served can be as the settings say now.

        :returns: What is to tell its server application.
        :raises InvalidSetting: With a whole line, if not.
        """
        self._refuse_disputes(directory, served.manager.backend)
        notifier = served.manager.notifier
        if (directory.notification, directory.public_url) != (
            served.directory.notification,
            served.directory.public_url,
        ):
            notifier = notifier_of(directory, self.reactor)
        refuse_unable(directory, served.manager.backend, notifier)
        return notifier

    def _backend(self, directory: Directory) -> IBackend:
        context = self.context(directory)
        try:
            return backend_from_description(directory.backend, context)
        except InvalidSetting as error:
            raise InvalidSetting(f"{directory.where}backend: {error}") from None

    def _refuse_disputes(self, directory: Directory, backend: IBackend) -> None:
        for other, its in self._made:
            for one, another in ((backend, its), (its, backend)):
                if IExclusive.providedBy(one) and one.disputes(another):
                    raise InvalidSetting(
                        f"{directory.where}backend: {directory.backend} is the place "
                        f"of {other.mount} already ({other.backend}); each directory "
                        "needs a place of its own"
                    )
        self._made.append((directory, backend))
