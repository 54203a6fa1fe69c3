"""
Builds the service from a configuration; the Twisted plugin names this module.

An embedder builds the same in three lines; see ``docs/examples/embed.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThreadPool

from txbits._adopted import AdoptingReactor
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.admin.delay import LoopDelay
from txbits.admin.figures import Figures
from txbits.clocks import keep_steady, steady, wall_of
from txbits.errors import InvalidSetting
from txbits.interfaces import IPartitioned, IShared
from txbits.service._admin import Admin
from txbits.service._life import AdminListener, Listener, Relayed, UploadService
from txbits.service._operators import check_admin
from txbits.service._ports import Ports
from txbits.service._process import Process, in_words, one_line
from txbits.service._reload import Reloader
from txbits.service._served import Builder
from txbits.service._service_manager import ServiceManager
from txbits.service._whole import Whole
from txbits.service._workers._setup import Inherited, WorkerSetup
from txbits.service._workers._sockets import InheritingReactor, OpeningReactor
from txbits.service._workers._supervisor import Openable, Supervisor
from txbits.service.options import Options
from txbits.service.settings import Configuration
from txbits.web import BITSSite, Relay
from txbits.web.mounts import Mounts

__all__ = ["Options", "assemble", "makeService", "supervise"]


def makeService(options: Options) -> IService:
    """
    Make the service for ``twistd`` or ``twist``.

    :raises SystemExit: With one line, for exit status 1, if a setting is wrong.
    """
    # Not earlier, because an option of twistd may select another reactor.
    from twisted.internet import reactor

    keep_steady(reactor)
    configuration = options["configuration"]
    make = assemble if configuration.workers == 1 else supervise
    try:
        service = make(configuration, reactor, options.logs_to_file)
    except InvalidSetting as error:
        raise SystemExit(one_line(error)) from None
    service.make_observer = options.make_observer
    return service


def supervise(
    configuration: Configuration, reactor: Any, logs_to_file: bool = True
) -> Supervisor:
    """
    Build what starts and watches workers, and start nothing.

    :param logs_to_file: As in :class:`~txbits.service._process.Process`.
    :raises InvalidSetting: As for :func:`assemble`, or if a backend cannot be used by
        several processes.
    """
    check_admin(configuration)

    def openable(endpoint: str, where: str, count: int) -> Openable:
        opening = OpeningReactor(reactor, count)
        return Openable(_listener(endpoint, where, opening), opening)

    where = f"{configuration.listen_from}listen: "
    listeners = [
        openable(endpoint, f"{where}{endpoint}", configuration.workers)
        for endpoint in configuration.listen
    ]
    admin = None
    if (endpoint := configuration.admin_listen) is not None:
        admin = openable(
            endpoint, f"{configuration.admin_from}admin-listen: {endpoint}", 1
        )
    # Not to be used: each worker builds its own. Mistakes are to be found before.
    builder = Builder(reactor)
    for directory in configuration.directories:
        backend = builder.build(directory, configuration).manager.backend
        if not (IShared.providedBy(backend) or IPartitioned.providedBy(backend)):
            raise InvalidSetting(
                f"{directory.where}backend: {directory.backend}: several workers "
                "cannot use it at the same time; set workers to 1"
            )
    return Supervisor(
        reactor,
        Process(reactor, logs_to_file),
        configuration,
        listeners,
        admin,
        ServiceManager.of(reactor, os.environ),
        lambda function: deferToThreadPool(reactor, reactor.getThreadPool(), function),
    )


def assemble(
    configuration: Configuration,
    reactor: Any,
    logs_to_file: bool = True,
    part: WorkerSetup | None = None,
    ledger: Ledger | None = None,
    relay: Relay | None = None,
    everywhere: Callable[[], Deferred[Any]] | None = None,
    whole: Whole | None = None,
) -> UploadService:
    """
    Build everything, and start nothing.

    :param logs_to_file: As in :class:`~txbits.service._process.Process`.
    :param part: If this process is one of several workers, what it got from the
        supervisor.
    :param ledger: What all workers count together; ``None`` if this process is alone.
    :param relay: Passes packets on to other workers; likewise.
    :param everywhere: Reads the metrics of all workers; likewise.
    :param whole: What all workers can tell together; likewise.
    :raises InvalidSetting: If a backend's description or an endpoint string is wrong.
    """
    check_admin(configuration)
    # First, because a misspelled endpoint counts as one without TLS.
    listeners = [
        _listener(
            endpoint,
            f"{configuration.listen_from}listen: {endpoint}",
            _listening(endpoint, reactor, None if part is None else part.listeners[n]),
        )
        for n, endpoint in enumerate(configuration.listen)
    ]
    builder = Builder(reactor, ledger, Worker() if part is None else part.worker, relay)
    served = [
        builder.build(directory, configuration)
        for directory in configuration.directories
    ]
    admin = Admin(configuration, served, whole)
    mounts = Mounts({})
    admin.serve(mounts)
    limits = configuration.limits
    site = BITSSite(
        mounts, reactor=reactor, limits=limits, only_uploads=True, ledger=ledger
    )
    ports, admin_ports = Ports(), Ports()
    reloader = Reloader(
        configuration,
        served,
        mounts,
        admin,
        builder,
        lambda function: deferToThreadPool(reactor, reactor.getThreadPool(), function),
    )
    admin_listener = None
    if (endpoint := configuration.admin_listen) is not None:
        where = f"{configuration.admin_from}admin-listen: {endpoint}"
        listening = _listening(endpoint, reactor, None if part is None else part.admin)
        delay = LoopDelay(steady(reactor))
        figures = Figures(
            admin.managers,
            mounts.counts,
            site,
            lambda: [*ports.certified(), *admin_ports.certified()],
            {
                "settings": reloader.counts,
                "certificates": ports.counts,
                "admin certificates": admin_ports.counts,
            },
            delay.delays,
            wall_of(reactor)(),
        )
        admin_site, activities, here = admin.site(reactor, figures, everywhere)
        admin_listener = AdminListener(
            _listener(endpoint, where, listening),
            admin_site,
            [delay, *activities],
            here,
        )
    relayed = None
    if part is not None and relay is not None:
        relayed = Relayed(relay, part.relay.descriptor, mounts)
    return UploadService(
        reactor,
        Process(reactor, logs_to_file),
        site,
        served,
        listeners,
        limits.max_connections,
        reloader,
        admin.health,
        ServiceManager.of(reactor, os.environ),
        admin_listener,
        relayed=relayed,
        ports=ports,
        admin_ports=admin_ports,
    )


def _listening(endpoint: str, reactor: Any, inherited: Inherited | None) -> Any:
    """
    Choose the reactor that an endpoint is to listen with.

    :param inherited: The socket, if this process has inherited one for it.
    """
    if inherited is not None:
        return InheritingReactor(reactor, inherited)
    return AdoptingReactor(reactor) if "systemd:" in endpoint else reactor


def _listener(description: str, where: str, reactor: Any) -> Listener:
    try:
        return Listener(where, description, serverFromString(reactor, description))
    except OSError as error:
        raise InvalidSetting(f"{where}: {in_words(error)}") from error
    except InvalidSetting as error:
        raise InvalidSetting(f"{where}: {error}") from None
    except Exception as error:
        # Each kind of endpoint raises its own errors, such as TypeError.
        raise InvalidSetting(
            f"{where}: not a valid endpoint string, such as tcp:8080: {error}"
        ) from error
