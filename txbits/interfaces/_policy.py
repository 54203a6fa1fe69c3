"""
Permission to upload and download.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface


class IAccessPolicy(Interface):
    """
    Decides who may upload where, and who may download.

    Authentication comes before, from outside (see
    :meth:`txbits.web.BITSResource.for_user`); this is about permission.
    """

    def check(
        caller: str | None, destination: tuple[str, ...], packet_type: str
    ) -> Deferred[None]:
        """
        Permit or refuse a packet, before its body arrives, or a download.

        Replies of server applications belong to the user who created the session; this
        is not called for them.

        :param caller: The authenticated user; ``None`` if anonymous.
        :param destination: The destination, not yet checked by the backend.
        :param packet_type: Such as ``"Create-Session"``, as the protocol spells it;
            ``"GET"`` or ``"HEAD"`` for a download.
        :returns: A Deferred that fires with ``None`` if it is permitted. It fails with
            :class:`~txbits.errors.AccessDenied` if not.
        """
