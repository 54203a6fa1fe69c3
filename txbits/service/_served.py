"""
Virtual directories as they are served, and how they are built from settings.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txbits._deferreds import deferred
from txbits._ledger import Ledger, SessionLedger
from txbits._workers import Worker
from txbits.backends import backend_from_description
from txbits.errors import BackendError, InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IExclusive, INotifier, IShared
from txbits.notification import HTTPNotifier
from txbits.service._access import Shared, gate_of
from txbits.service._permitted import doubts_about
from txbits.service.settings import Configuration, Directory
from txbits.sessions import SessionManager
from txbits.sessions._abilities import require_abilities
from txbits.web import BITSResource, Gate, Relay

_log = Logger()

#: Seconds after which the log says that a directory has not started yet.
_PATIENCE = 4.0


@define(eq=False)
class Served:
    """
    A virtual directory as it is served.

    :ivar directory: Its settings.
    :ivar resource: Answers requests to its URLs.
    :ivar clock: Tells when its start takes long.
    :ivar is_started: Whether it has started, and has not stopped.
    """

    directory: Directory
    resource: BITSResource
    clock: IReactorTime
    is_started: bool = field(default=False, init=False)

    @property
    def manager(self) -> SessionManager:
        """Its sessions."""
        return self.resource.manager

    @property
    def where(self) -> str:
        """What an error message about its backend begins with."""
        return f"{self.directory.where}backend: {self.directory.backend}"

    @property
    def _name(self) -> str:
        """Its name in the log."""
        return self.directory.mount.rstrip("/")

    @deferred
    async def start(self) -> None:
        """
        Start its sessions and its backend.

        :returns: A Deferred that fires with ``None`` when packets may come. It fails
            with :class:`~txbits.errors.InvalidSetting`, with a whole line, if the
            backend cannot work.
        """
        overdue = self.clock.callLater(_PATIENCE, self._report_waiting)
        try:
            await self.manager.start()
        except (BackendError, InvalidSetting) as error:
            raise InvalidSetting(f"{self.where}: {error}") from error
        finally:
            if overdue.active():
                overdue.cancel()
        self.is_started = True
        self.report_doubts()

    def report_doubts(self) -> None:
        """Log what permissions probably do not mean."""
        for line in doubts_about(self.directory):
            _log.warn("{line}", line=line, directory=self._name)

    def _report_waiting(self) -> None:
        _log.warn(
            "{where}: not ready after {seconds:.0f} s, waiting",
            where=self.where,
            directory=self._name,
            seconds=_PATIENCE,
        )

    @deferred
    async def stop(self) -> None:
        """
        Stop its sessions and its backend. Open sessions stay in its store.

        :returns: A Deferred that fires with ``None`` when all is stopped; it does not
            fail.
        """
        self.is_started = False
        try:
            await self.manager.stop()
        except Exception:  # noqa: BLE001 - others must still be stopped
            _log.failure(
                "cannot stop {mount}: {log_failure}",
                mount=self.directory.mount,
                directory=self._name,
            )


@define(eq=False)
class Builder:
    """
    Builds what serves virtual directories, and starts nothing.

    All its methods raise :class:`~txbits.errors.InvalidSetting`, with a whole line, if
    settings cannot be used.

    :param reactor: The reactor that backends and notifiers use.
    :param ledger: What all workers count together; ``None`` if this process is alone.
    :param worker: Which of the processes this is that use the same stores.
    :param relay: Passes packets on to other workers; ``None`` if this process is alone.
    """

    reactor: Any
    ledger: Ledger | None = None
    worker: Worker = field(factory=Worker)
    relay: Relay | None = None
    _shared: Shared = field(init=False)
    _started_in: str = field(factory=os.getcwd, init=False)
    _places: list[tuple[Directory, IBackend]] = field(factory=list, init=False)

    @_shared.default
    def _share(self) -> Shared:
        return Shared(self.reactor, self.ledger)

    def forget_places(self) -> None:
        """Begin a new configuration, in which no place is taken yet."""
        self._places.clear()

    def take_place(self, directory: Directory, backend: IBackend) -> None:
        """Refuse a place where another directory stores its uploads."""
        for other, its in self._places:
            for one, another in ((backend, its), (its, backend)):
                if IExclusive.providedBy(one) and one.disputes(another):
                    raise InvalidSetting(
                        f"{directory.where}backend: {directory.backend} is already "
                        f"used by {other.mount} ({other.backend}); each directory "
                        "needs a place of its own"
                    )
        self._places.append((directory, backend))

    def build(self, directory: Directory, configuration: Configuration) -> Served:
        """
        Build a directory.

        :param configuration: All settings of the server; its listeners are those that
            are used.
        """
        backend = self._backend(directory)
        self.take_place(directory, backend)
        gate = gate_of(directory, configuration, self._shared)
        resource = BITSResource(
            backend,
            directory.settings,
            policy=gate.policy,
            authenticators=gate.authenticators,
            session_credentials=gate.session_credentials,
            notifier=self._notifier(directory, backend),
            reactor=self.reactor,
            public_url=directory.public_url,
            trusted_proxies=configuration.trusted_proxies,
            name=directory.mount,
            log_packets=directory.log_packets,
            ledger=self._session_ledger(directory, backend),
            relay=self.relay,
        )
        return Served(directory, resource, self.reactor)

    def _session_ledger(
        self, directory: Directory, backend: IBackend
    ) -> SessionLedger | None:
        if self.ledger is None:
            return None
        # One with a place of its own may get another mount while it is served.
        is_exclusive = IExclusive.providedBy(backend)
        return self.ledger.sessions_of(
            directory.backend if is_exclusive else directory.mount,
            is_shared=IShared.providedBy(backend),
            later=self.reactor.callLater,
        )

    def try_out(self, directory: Directory, configuration: Configuration) -> None:
        """Check that a directory could be built after a restart."""
        self._notifier(directory, self._backend(directory))
        gate_of(directory, configuration, self._shared)

    def gate_for(self, directory: Directory, configuration: Configuration) -> Gate:
        """
        Build what admits requests to a directory that is being served.

        :param configuration: As for :meth:`build`.
        """
        return gate_of(directory, configuration, self._shared)

    def notifier_for(self, directory: Directory, served: Served) -> INotifier | None:
        """
        Check that a directory that is being served can have other settings.

        :returns: The notifier for its server application; the present one, if its
            settings do not change.
        """
        manager, before = served.manager, served.directory
        if (directory.notification, directory.public_url) != (
            before.notification,
            before.public_url,
        ):
            return self._notifier(directory, manager.backend)
        _require_abilities(directory, manager.backend, manager.notifier)
        return manager.notifier

    def context(self, directory: Directory) -> BackendContext:
        """What the backend of a directory gets besides its description."""
        notifies = directory.notification is not None
        return BackendContext(
            self.reactor,
            directory.fsync,
            notifies,
            self._started_in,
            directory.creates_root,
            self.worker,
        )

    def _backend(self, directory: Directory) -> IBackend:
        try:
            return backend_from_description(directory.backend, self.context(directory))
        except InvalidSetting as error:
            raise InvalidSetting(f"{directory.where}backend: {error}") from None

    def _notifier(self, directory: Directory, backend: IBackend) -> INotifier | None:
        notifier, notification = None, directory.notification
        if notification is not None:
            try:
                notifier = HTTPNotifier(
                    self.reactor,
                    notification.url,
                    by=notification.by,
                    public_url=directory.public_url,
                    secret=notification.secret,
                    **notification.timeouts,
                )
            except InvalidSetting as error:
                raise InvalidSetting(f"{directory.where}notify-url: {error}") from None
        _require_abilities(directory, backend, notifier)
        return notifier


def _require_abilities(
    directory: Directory, backend: IBackend, notifier: INotifier | None
) -> None:
    try:
        require_abilities(backend, directory.settings, notifier, directory.backend)
    except InvalidSetting as error:
        raise InvalidSetting(f"{directory.where}{error}") from None
