"""
Virtual directories at their places in the tree of URLs.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource
from twisted.web.server import Request

from txbits.web import NotMounted


class Mounts(NotMounted):
    """
    The root of the URLs: where mounts lie within one another, the longest one decides.

    Twisted's tree would decide segment by segment, and not come back from ``/a/b`` to
    what is mounted at ``/`` when it finds that only ``/a/c`` is mounted elsewhere.

    :param mounts: What is at each place, known by the percent-decoded segments of its
        prefix: a leaf, which takes the rest of the path from ``request.postpath``.
    """

    def __init__(self, mounts: Mapping[tuple[bytes, ...], IResource]) -> None:
        super().__init__()
        self.replace(mounts)

    def replace(self, mounts: Mapping[tuple[bytes, ...], IResource]) -> None:
        """
        Serve others from now on; what a request has found already goes on.

        :param mounts: As at the beginning.
        """
        self._mounts = dict(mounts)
        self._depths = sorted({len(segments) for segments in mounts}, reverse=True)

    def getChild(self, path: bytes, request: Request) -> IResource:
        below = [path, *(request.postpath or ())]
        for depth in self._depths:
            mounted = self._mounts.get(tuple(below[:depth]))
            if mounted is not None:
                above = (request.prepath or [])[:-1]
                request.prepath = above + below[:depth]
                request.postpath = below[depth:]
                return mounted
        return super().getChild(path, request)
