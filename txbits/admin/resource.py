"""
The pages of the operator's listener, and who may see them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from attrs import frozen
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._deferreds import begun
from txbits.errors import (
    AccessDenied,
    BackendError,
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
)
from txbits.interfaces import IAuthenticator
from txbits.sessions import Caller
from txbits.sessions.naming import shown
from txbits.web import Gate
from txbits.web._ack import challenges
from txbits.web._origin import Origins

_log = Logger()

READING = (b"GET", b"HEAD")

_TEXT = b"text/plain; charset=utf-8"


@frozen
class Page:
    """
    What a request is answered with.

    :ivar body: The body.
    :ivar content_type: The type of the body.
    :ivar status: The status.
    :ivar headers: Further headers.
    """

    body: bytes
    content_type: bytes = _TEXT
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


#: Makes a page, now or later.
MakePage = Callable[[], Page | Awaitable[Page]]


def write(request: Request, page: Page) -> int:
    """
    Answer a request with a page, unless its connection is gone.

    :returns: What a resource returns whose request is answered elsewhere.
    """
    if not request._disconnected:
        request.setResponseCode(page.status)
        headers = [
            (b"Server", b"txbits"),
            (b"Content-Type", page.content_type),
            (b"Content-Length", b"%d" % len(page.body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
        ]
        if page.status == 405:
            headers.append((b"Allow", b", ".join(READING)))
        for name, value in headers:
            request.setHeader(name, value)
        for name, value in page.headers:
            request.responseHeaders.addRawHeader(name, value)
        if request.method != b"HEAD":
            request.write(page.body)
        request.finish()
    return NOT_DONE_YET


@frozen(eq=False)
class Operators:
    """
    Who may see the pages, where not everyone who can connect may.

    :ivar users: Their names.
    :ivar authenticators: Returns what establishes who sends a request; this may change
        when settings are read again.
    """

    users: Collection[str]
    authenticators: Callable[[], Collection[IAuthenticator]]

    async def admit(self, request: Request, caller: Caller, origins: Origins) -> Caller:
        """
        Establish who sends a request, and whether that is an operator.

        :raises CredentialsRejected: If nobody knows who sends it.
        :raises CredentialsUncheckable: If that cannot be told now.
        :raises AccessDenied: If it is no operator.
        """
        found = caller

        def known(caller: Caller) -> None:
            nonlocal found
            found = caller

        gate = Gate(self.authenticators())
        if not gate.authenticators:
            raise AccessDenied("no directory has authentication schemes now")
        # Upload links do not permit downloads, nor this.
        caller = await gate.admit(request, caller, origins, (), "GET", known=known)
        if caller.user not in self.users:
            raise AccessDenied(f"{shown(str(found.user))} is not in admin-users")
        return caller


class AdminResource(Resource):
    """
    The root of the operator's site.

    :param pages: Makes each page, by its path.
    :param operators: Returns who may see them; ``None`` if everyone may who can
        connect.
    """

    isLeaf = True

    def __init__(
        self,
        pages: Mapping[bytes, MakePage],
        operators: Callable[[], Operators | None],
    ) -> None:
        super().__init__()
        self._pages = pages
        self._operators = operators
        self._origins = Origins()

    def render(self, request: Request) -> int:
        begun(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        caller = Caller(address=self._origins.client(request))
        try:
            operators = self._operators()
            if operators is not None:
                caller = await operators.admit(request, caller, self._origins)
            page = await self._page(request)
        except (
            AccessDenied,
            BackendError,
            CredentialsRejected,
            CredentialsUncheckable,
        ) as error:
            page = _refused(request, error, caller)
        except Exception:  # noqa: BLE001 - the edge: every error is answered
            _log.failure("{path} failed", path=shown(request.path.decode("latin-1")))
            page = Page(b"internal error\n", status=500)
        write(request, page)

    async def _page(self, request: Request) -> Page:
        make = self._pages.get(request.path)
        if make is None:
            paths = b"".join(b"%b\n" % path for path in self._pages)
            return Page(b"not found; there are:\n" + paths, status=404)
        if request.method not in READING:
            return Page(b"GET or HEAD only\n", status=405)
        page = make()
        return page if isinstance(page, Page) else await page


def _refused(request: Request, error: Exception, caller: Caller) -> Page:
    """Log a refusal, and make its page."""
    if isinstance(error, CredentialsRejected):
        page = Page(b"who are you?\n", status=401, headers=tuple(challenges(error)))
    elif isinstance(error, AccessDenied):
        page = Page(b"not permitted\n", status=403)
    else:
        seconds = b"%d" % getattr(error, "retry_after", 30)
        page = Page(b"try later\n", status=503, headers=((b"Retry-After", seconds),))
    log = _log.debug if isinstance(error, CredentialsIncomplete) else _log.info
    log(
        "refused {path} to {client} with {status}: {detail}",
        outcome="refused",
        path=shown(request.path.decode("latin-1")),
        client=caller.address,
        status=page.status,
        detail=shown(str(error)),
    )
    return page
