"""
The pages of the operator's listener, and who may see them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._accounts import peer_user
from txbits._deferreds import begun
from txbits.admin.pages import READING, MakePage, Page, not_allowed, write
from txbits.admin.routes import (
    Route,
    TooManyFields,
    Visit,
    comes_from_elsewhere,
    form_of,
    names_this_machine,
    query_of,
    why_forged,
)
from txbits.admin.tokens import FormTokens
from txbits.errors import (
    AccessDenied,
    BackendError,
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
)
from txbits.interfaces import IAuthenticator, Identity
from txbits.sessions import Caller
from txbits.sessions.naming import shown
from txbits.web import Gate
from txbits.web._ack import challenges
from txbits.web._origin import Origins

_log = Logger()


class Forged(AccessDenied):
    """A request may not be what the operator wants; the text may be shown."""


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
    :param tokens: Makes the tokens of forms.
    :param routes: Answers other requests. The first whose path matches is taken.
    """

    isLeaf = True

    def __init__(
        self,
        pages: Mapping[bytes, MakePage],
        operators: Callable[[], Operators | None],
        tokens: FormTokens,
        routes: Sequence[Route] = (),
    ) -> None:
        super().__init__()
        self._pages = pages
        self._operators = operators
        self._tokens = tokens
        self._routes = routes
        self._origins = Origins()

    def render(self, request: Request) -> int:
        begun(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        caller = Caller(address=self._origins.client(request))
        try:
            operators = self._operators()
            if operators is None:
                caller = Caller(_peer(request), caller.address)
                if not names_this_machine(request):
                    raise AccessDenied(
                        "without logins, the host must be an IP address, localhost or "
                        "another name without a dot"
                    )
            else:
                caller = await operators.admit(request, caller, self._origins)
            if comes_from_elsewhere(request):
                raise Forged("another site caused this request")
            page = await self._page(request, caller)
        except TooManyFields as error:
            page = Page(f"{error}\n".encode(), status=400)
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
        if page is not None:
            write(request, page)

    async def _page(self, request: Request, caller: Caller) -> Page | None:
        if (make := self._pages.get(request.path)) is not None:
            if request.method not in READING:
                return not_allowed()
            page = make()
            return page if isinstance(page, Page) else await page
        for route in self._routes:
            if (parameters := route.match(request.path)) is not None:
                return await self._visited(
                    route, Visit(request, caller, parameters, query_of(request))
                )
        paths = [*self._pages, *(route.path.encode() for route in self._routes)]
        lines = b"".join(b"%b\n" % path for path in paths)
        return Page(b"not found; there are:\n" + lines, status=404)

    async def _visited(self, route: Route, visit: Visit) -> Page | None:
        method = visit.request.method
        if (answer := route.answer(method)) is None:
            return not_allowed(route.allowed)
        if method not in READING:
            if method == b"POST":
                form = form_of(visit.request)
                if form is None:
                    return Page(b"a form is required\n", status=415)
                visit.form = form
            if (why := why_forged(visit, self._tokens)) is not None:
                raise Forged(why)
        page = answer(visit)
        return page if isinstance(page, Page | None) else await page


def _peer(request: Request) -> Identity | None:
    """Who is at the other end of a Unix socket; ``None`` of others."""
    transport: Any = request.channel.transport
    if not isinstance(request.getClientAddress(), UNIXAddress):
        return None
    if (get_handle := getattr(transport, "getHandle", None)) is None:
        return None
    return Identity(f"uid {peer_user(get_handle())}", "unix")


def _refused(request: Request, error: Exception, caller: Caller) -> Page:
    """Log a refusal, and make its page."""
    if isinstance(error, CredentialsRejected):
        page = Page(b"who are you?\n", status=401, headers=tuple(challenges(error)))
    elif isinstance(error, Forged):
        page = Page(f"{error}\n".encode(), status=403)
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
