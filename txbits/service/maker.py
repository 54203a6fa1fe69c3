"""
Builds the service from a configuration; the Twisted plugin names this module.

An embedder builds the same in three lines; see ``docs/examples/embed.py``.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import IService
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThreadPool

from txbits._ledger import Ledger
from txbits.admin.delay import LoopDelay
from txbits.admin.figures import Figures
from txbits.clocks import keep_steady, steady, wall_of
from txbits.errors import InvalidSetting
from txbits.service._admin import Admin
from txbits.service._life import AdminListener, Listener, UploadService
from txbits.service._operators import check_admin
from txbits.service._ports import Ports
from txbits.service._process import Process, in_words, one_line
from txbits.service._reload import Reloader
from txbits.service._served import Builder
from txbits.service._supervisor import Supervisor
from txbits.service.options import Options
from txbits.service.settings import Configuration
from txbits.web import BITSSite
from txbits.web.mounts import Mounts

__all__ = ["Options", "assemble", "makeService"]


def makeService(options: Options) -> IService:
    """
    Make the service for ``twistd`` or ``twist``.

    :raises SystemExit: With one line, for exit status 1, if a setting is wrong.
    """
    # Not earlier, because an option of twistd may select another reactor.
    from twisted.internet import reactor

    keep_steady(reactor)
    try:
        service = assemble(options["configuration"], reactor, options.logs_to_file)
    except InvalidSetting as error:
        raise SystemExit(one_line(error)) from None
    service.make_observer = options.make_observer
    return service


def assemble(
    configuration: Configuration,
    reactor: Any,
    logs_to_file: bool = True,
    ledger: Ledger | None = None,
) -> UploadService:
    """
    Build everything, and start nothing.

    :param logs_to_file: As in :class:`~txbits.service._process.Process`.
    :param ledger: What all workers count together; ``None`` if this process is alone.
    :raises InvalidSetting: If a backend's description or an endpoint string is wrong.
    """
    check_admin(configuration)
    # First, because a misspelled endpoint counts as one without TLS.
    listeners = [
        _listener(endpoint, f"{configuration.listen_from}listen: {endpoint}", reactor)
        for endpoint in configuration.listen
    ]
    builder = Builder(reactor, ledger)
    served = [
        builder.build(directory, configuration)
        for directory in configuration.directories
    ]
    admin = Admin(configuration, served)
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
        admin_listener = AdminListener(
            _listener(endpoint, where, reactor), admin.site(reactor, figures), delay
        )
    return UploadService(
        reactor,
        Process(reactor, logs_to_file),
        site,
        served,
        listeners,
        limits.max_connections,
        reloader,
        admin.health,
        Supervisor.of(reactor, os.environ),
        admin_listener,
        ports=ports,
        admin_ports=admin_ports,
    )


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
