"""
Backend descriptions: one string, such as ``disk:/srv/uploads``, becomes a backend.

The prefix selects an :class:`~txbits.interfaces.IBackendParser` among the Twisted
plugins. The parsers of our own backends are here too. They import a backend only when
they make one, since twistd loads every plugin that it lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import ClassVar

from zope.interface import implementer

from txbits._descriptions import installed, make, parse_description
from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IBackendParser

# For how many seconds a worker waits for the locks of one that was killed, which has
# them as long as an fsync of it is under way.
_PATIENCE = 5.0


def available_parsers() -> list[IBackendParser]:
    """Find the parsers of all installed plugins, sorted by prefix."""
    return installed(IBackendParser, "prefix")


def backend_from_description(
    text: str,
    context: BackendContext,
    parsers: Iterable[IBackendParser] | None = None,
) -> IBackend:
    """
    Make the backend that a description names.

    :param text: The description.
    :param context: Handed to the parser.
    :param parsers: The parsers to choose from; if ``None``, the installed plugins.
    :raises InvalidSetting: If the description cannot be used; the text is one line.
    """
    prefix, args, kwargs = parse_description(text)
    known = list(available_parsers() if parsers is None else parsers)
    parser = next((one for one in known if one.prefix == prefix), None)
    if parser is None:
        formats = ", ".join(one.format for one in known) or "none"
        raise InvalidSetting(f"unknown backend {prefix!r}; the backends are: {formats}")
    return make(parser.parse_backend, parser.format, context, args, kwargs)


@implementer(IBackendParser)
class _Parser:
    """A parser of ours: what a description looks like, and what it makes."""

    prefix: ClassVar[str]
    format: ClassVar[str]
    help: ClassVar[str]
    _make: ClassVar[Callable[..., IBackend]]

    def parse_backend(
        self, context: BackendContext, *args: str, **kwargs: str
    ) -> IBackend:
        """Make the backend; see :class:`~txbits.interfaces.IBackendParser`."""
        return make(type(self)._make, self.format, context, args, kwargs)


def _memory(context: BackendContext) -> IBackend:
    from txbits.backends.memory import MemoryBackend

    return MemoryBackend(context.reactor)


class MemoryBackendParser(_Parser):
    """``memory:``; see :class:`~txbits.backends.memory.MemoryBackend`."""

    prefix = "memory"
    format = "memory:"
    help = "Keeps uploads in memory, and loses them when the process ends. For tests."
    _make = staticmethod(_memory)


def _disk(context: BackendContext, path: str, *, create: str = "") -> IBackend:
    from txbits.backends.disk import DiskBackend

    if not path or "\0" in path:
        raise InvalidSetting(f"disk:{path!a} names no directory; write disk:PATH")
    if create not in ("", "yes", "no"):
        raise InvalidSetting(f"create must be yes or no, not {create!r}")
    return DiskBackend(
        os.path.join(context.directory, path),
        context.reactor,
        fsync=context.fsync,
        create=create == "yes" or (not create and context.creates_root),
        worker=context.worker,
        patience=_PATIENCE if context.worker.count > 1 else 0.0,
    )


class DiskBackendParser(_Parser):
    """``disk:PATH``; see :class:`~txbits.backends.disk.DiskBackend`."""

    prefix = "disk"
    format = "disk:PATH[:create=yes]"
    help = (
        "Publishes uploads below the directory PATH, and stages them in "
        "PATH/.bits-sessions. Sessions survive a restart. A settings file must name a "
        "PATH that exists, or say create=yes; on a command line, create=no requires it."
    )
    _make = staticmethod(_disk)


def _s3(context: BackendContext, bucket: str, **settings: str) -> IBackend:
    try:
        from txbits.backends.s3 import S3Backend
        from txbits.backends.s3._settings import from_description
    except ModuleNotFoundError as error:
        if error.name != "botocore":
            raise
        raise InvalidSetting(
            "s3: needs botocore; install it with pip install 'txbits[s3]'"
        ) from error
    if settings.get("ca"):
        settings["ca"] = os.path.join(context.directory, settings["ca"])
    return S3Backend(
        from_description(bucket, settings),
        context.reactor,
        notifies=context.notifies,
        workers=context.worker.count,
    )


class S3BackendParser(_Parser):
    """``s3:BUCKET``; see :class:`~txbits.backends.s3.S3Backend`."""

    prefix = "s3"
    format = "s3:BUCKET[:prefix=PREFIX][:endpoint=URL][:region=NAME][:...]"
    help = (
        "Uploads into a bucket of Amazon S3 or a compatible store, which several "
        "servers may share. Endpoint, region and credentials may come from the "
        "environment and the files of AWS."
    )
    _make = staticmethod(_s3)
