"""
The tree of URLs, with virtual directories as its leaves.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._counts import Counts
from txbits.protocol.codec import RemoteProtocolError
from txbits.protocol.refusals import NOT_MOUNTED
from txbits.sessions.naming import shown
from txbits.web._ack import refuse
from txbits.web._streaming import destination_of


class NotMounted(Resource):
    """
    A root for resources, which refuses URLs that are in no virtual directory.

    :ivar counts: Counts what it refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def getChild(self, path: bytes, request: Request) -> IResource:
        return _Unknown(self.counts)

    def render(self, request: Request) -> int:
        return _Unknown(self.counts).render(request)


class _Unknown(Resource):
    isLeaf = True

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def render(self, request: Request) -> int:
        uri = shown(request.uri.decode("latin-1"))
        error = RemoteProtocolError(f"the URL is {uri}", NOT_MOUNTED)
        refuse(request, error, destination_of(request), counts=self._counts)
        return NOT_DONE_YET


class Mounts(NotMounted):
    """
    The root of the URLs: if several mounts match, the longest one is used.

    Twisted's tree decides segment by segment. If ``/`` and ``/a/c`` are mounted, it
    does not find the mount at ``/`` for ``/a/b``.

    :param mounts: The leaf resource for each mount, by the percent-decoded segments of
        its path. It takes the rest of the path from ``request.postpath``.
    :param pages: Resources for single paths, which come before all mounts. The segment
        of ``/`` is empty.
    """

    def __init__(
        self,
        mounts: Mapping[tuple[bytes, ...], IResource],
        pages: Mapping[tuple[bytes, ...], IResource] | None = None,
    ) -> None:
        super().__init__()
        self.replace(mounts, pages)

    def replace(
        self,
        mounts: Mapping[tuple[bytes, ...], IResource],
        pages: Mapping[tuple[bytes, ...], IResource] | None = None,
    ) -> None:
        """
        Serve other mounts from now on. Requests under way are not affected.

        :param mounts: As for the constructor.
        :param pages: Likewise.
        """
        self._mounts = dict(mounts)
        self._pages = dict(pages or {})
        self._depths = sorted({len(segments) for segments in mounts}, reverse=True)

    def getChild(self, path: bytes, request: Request) -> IResource:
        below = [path, *(request.postpath or ())]
        if self._pages and (page := self._pages.get(tuple(below))) is not None:
            request.postpath = []
            return page
        for depth in self._depths:
            mounted = self._mounts.get(tuple(below[:depth]))
            if mounted is not None:
                above = (request.prepath or [])[:-1]
                request.prepath = above + below[:depth]
                request.postpath = below[depth:]
                return mounted
        return super().getChild(path, request)
