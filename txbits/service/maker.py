"""
Builds the service from a configuration, and is what the Twisted plugin names.

Whatever this builds, an embedder builds in three lines; see
``docs/examples/embed.py``.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import IResource

from txbits.backends import backend_from_description
from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IExclusive
from txbits.service._life import Listener, Served, UploadService
from txbits.service._mounts import Mounts
from txbits.service._process import Process
from txbits.service.options import Options, one_line
from txbits.service.settings import Configuration, Directory
from txbits.web import BITSResource, BITSSite

__all__ = ["Options", "assemble", "makeService"]


def makeService(options: Options) -> IService:
    """
    Make the service for ``twistd`` or ``twist``.

    :raises SystemExit: With one line, for exit status 1, if a setting is wrong.
    """
    # Not before: an option of twistd may still choose another reactor.
    from twisted.internet import reactor

    try:
        return assemble(options["configuration"], reactor)
    except InvalidSetting as error:
        raise SystemExit(one_line(error)) from None


def assemble(configuration: Configuration, reactor: Any) -> UploadService:
    """
    Build everything, and start nothing.

    :raises InvalidSetting: If a backend's description or an endpoint string is wrong.
    """
    served = []
    mounts: dict[tuple[bytes, ...], IResource] = {}
    made: list[tuple[Directory, IBackend]] = []
    for directory in configuration.directories:
        backend = _backend(directory, reactor)
        _refuse_disputes(directory, backend, made)
        made.append((directory, backend))
        resource = BITSResource(backend, directory.settings, reactor=reactor)
        mounts[directory.segments] = resource
        served.append(
            Served(
                f"{directory.where}backend: {directory.backend}",
                directory.mount,
                directory.backend,
                resource.manager,
            )
        )
    listeners = [
        _listener(endpoint, f"{configuration.listen_from}listen: {endpoint}", reactor)
        for endpoint in configuration.listen
    ]
    limits = configuration.limits
    return UploadService(
        reactor,
        Process(reactor),
        BITSSite(Mounts(mounts), reactor=reactor, limits=limits, only_uploads=True),
        served,
        listeners,
        limits.max_connections,
    )


def _backend(directory: Directory, reactor: Any) -> IBackend:
    context = BackendContext(reactor, directory.fsync)
    try:
        return backend_from_description(directory.backend, context)
    except InvalidSetting as error:
        raise InvalidSetting(f"{directory.where}backend: {error}") from None


def _refuse_disputes(
    directory: Directory, backend: IBackend, made: list[tuple[Directory, IBackend]]
) -> None:
    for other, its in made:
        for one, another in ((backend, its), (its, backend)):
            if IExclusive.providedBy(one) and one.disputes(another):
                raise InvalidSetting(
                    f"{directory.where}backend: {directory.backend} is the place of "
                    f"{other.mount} already ({other.backend}); each directory needs a "
                    f"place of its own"
                )


def _listener(description: str, where: str, reactor: Any) -> Listener:
    try:
        return Listener(where, description, serverFromString(reactor, description))
    except Exception as error:
        # Each kind of endpoint has its own way to complain, a TypeError among them.
        raise InvalidSetting(f"{where}: {error}") from error
