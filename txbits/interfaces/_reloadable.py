"""
What listening ports can do besides listening.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class IReloadable(Interface):
    """
    A listening port whose files, such as certificates, can be read again.

    The service calls this at SIGHUP for each port that provides it, whichever endpoint
    has made the port.
    """

    def reload() -> Deferred[str]:
        """
        Read the files again, in a thread. New connections then use the new ones.

        :returns: A Deferred that fires with a few words on what has been read, for the
            log. It fails with :class:`~txbits.errors.InvalidSetting` if the files
            cannot be used; then the old ones stay in use.
        """


class ICertified(Interface):
    """A listening port that has a certificate."""

    expires: float = Attribute(
        "When the certificate that new connections get expires, in seconds since the "
        "epoch."
    )
