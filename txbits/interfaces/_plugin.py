"""
Making a backend from its description.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import Factory, frozen
from twisted.plugin import IPlugin
from zope.interface import Attribute

from txbits._workers import Worker
from txbits.interfaces._storage import IBackend


@frozen
class BackendContext:
    """
    The arguments of a backend parser besides the description.

    :ivar reactor: The reactor that the backend is to use.
    :ivar fsync: When bytes are secured against a crash of the machine: ``"close"``
        (before the Ack of Close-Session), ``"fragment"`` (before every Ack) or
        ``"never"``. A backend without this choice ignores it.
    :ivar notifies: Whether a server application is asked about complete uploads, so
        that their bytes are read before they are published. A backend for which that
        makes no difference ignores it.
    :ivar directory: The directory that paths of files are relative to: a daemon may
        have changed its working directory since it was started. Empty for that of the
        process.
    :ivar creates_root: Whether the backend may create a directory for its files that
        does not exist.
    :ivar worker: Which of the processes that use the store at the same time this is.
        There is more than one only for backends that are
        :class:`~txbits.interfaces.IShared` or
        :class:`~txbits.interfaces.IPartitioned`.
    """

    reactor: Any
    fsync: Literal["close", "fragment", "never"] = "close"
    notifies: bool = False
    directory: str = ""
    creates_root: bool = False
    worker: Worker = Factory(Worker)


class IBackendParser(IPlugin):
    """
    A Twisted plugin that makes a backend from its description.

    A description is written like Twisted's endpoint strings,
    ``prefix:argument:name=value``, with a backslash before a colon that is meant
    as one. Put an instance into a module of the ``twisted.plugins`` package, and
    ``--backend prefix:...`` works.
    """

    prefix: str = Attribute("The first word of its descriptions, such as 'disk'.")
    format: str = Attribute("The form of a description, such as 'disk:PATH'.")
    help: str = Attribute("One or two sentences that say what the backend is for.")

    def parse_backend(context: BackendContext, *args: str, **kwargs: str) -> IBackend:
        """
        Make the backend, without I/O, which is for ``IBackend.start``.

        An implementation may name the arguments that it accepts; a description with
        others is refused before this is called.

        :param context: The reactor, and settings that concern storage.
        :param args: The positional parts of the description, unescaped.
        :param kwargs: The named parts, unescaped.
        :raises InvalidSetting: If the description is wrong; the text says how.
        """
