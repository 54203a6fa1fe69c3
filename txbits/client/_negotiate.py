"""
Kerberos for the client: the scheme Negotiate (RFC 4559).

It proves who the user is by a ticket, which ``kinit`` gets, or the library itself from
the keytab that ``KRB5_CLIENT_KTNAME`` names: for jobs that nobody attends. The ticket
is for ``HTTP@HOST``, the host as the URL has it.

This is how a maker of requests uses one :class:`Negotiator` for each server:

1. Before each request, ``await negotiator.opening()``. If that is not ``None``, it is
   the value of Authorization.
2. If the response is 401, ``await negotiator.challenged(values)`` with the values of
   its WWW-Authenticate. If that is not ``None``, send the same request again *on the
   same connection*, with it as the value of Authorization, and go on with 2. If it is
   ``None``, the server refuses this user, or does not offer Negotiate.
3. After any other response, ``await negotiator.answered(values, persistent)`` with the
   values of WWW-Authenticate and Persistent-Auth.

A login is good for the connection, so that the next request needs none, unless the
server says otherwise: then :meth:`Negotiator.opening` returns a new token each time.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from txbits._deferreds import deferred

# RFC 9110 11.6.1: one header may have several challenges; one of ours has a token, or
# nothing. What looks like one within a quoted string is of no harm.
_CHALLENGE = re.compile(
    rb"(?:^|,)[ \t]*negotiate(?:[ \t]+(?P<token>[A-Za-z0-9+/]+={0,2}))?[ \t]*(?=,|$)",
    re.IGNORECASE,
)

#: How much of a header is read: tickets are long.
_LONGEST = 64 * 1024

#: How many tokens one login may take.
MOST_STEPS = 5


class KerberosMissing(Exception):
    """The package gssapi is not installed; the text says how to get it."""


class NoTicket(Exception):
    """
    There is no ticket for the server, or the server is not who it says.

    The text is one line that says why, and what to do.

    :ivar transient: Whether it can help to try again: the KDC is away.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


#: What to do about what the library says. Its codes are of no use within SPNEGO, where
#: they are made up in the order of their appearance.
_ADVICE = (
    (r"No Kerberos credentials|No credentials cache", "run kinit"),
    ("Ticket expired", "run kinit again"),
    ("Clock skew|not yet valid", "set this machine's clock as the KDC's"),
    (
        "not found in Kerberos database",
        "the URL needs the host name of the server's service principal",
    ),
    ("Cannot find KDC", "name one in krb5.conf"),
    ("Cannot contact any KDC", "check the network"),
)
_AWAY = re.compile("Cannot contact any KDC")


def offered(values: Sequence[bytes]) -> bytes | None:
    """
    Find the challenge of Negotiate.

    :param values: The values of WWW-Authenticate.
    :returns: The token in it, which can be empty; ``None`` if there is no such
        challenge, or the token is malformed.
    """
    for value in values:
        found = _CHALLENGE.search(value[:_LONGEST])
        if found is not None:
            try:
                return b64decode(found["token"] or b"", validate=True)
            except ValueError:
                return None
    return None


@define(eq=False, repr=False)
class Negotiator:
    """
    Logs in to one server, on one connection at a time.

    :param host: The host of the server, as its certificate would have it.
    :param cache: The credentials cache with the user's ticket; ``None`` for the one
        that the library finds.
    :param in_thread: Calls a function that blocks, and returns a Deferred.
    :raises KerberosMissing: If gssapi is not installed.
    """

    _host: str
    _cache: str | None = None
    _in_thread: Callable[..., Deferred[Any]] = deferToThread
    _library: Any = field(init=False)
    _context: Any = field(default=None, init=False)
    _steps: int = field(default=0, init=False)
    _done: bool = field(default=False, init=False)
    _each_time: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._library = _load()

    @property
    def is_logging_in(self) -> bool:
        """Whether a login is under way, which the server has to end with a proof."""
        return self._steps > 0

    @deferred
    async def opening(self) -> bytes | None:
        """
        Begin the next request. What came of the one before does not matter.

        :returns: A Deferred that fires with the value of Authorization, or with
            ``None`` if the server has not asked for one with each request. It fails
            with :class:`NoTicket`.
        """
        self._forget()
        return await self._begin() if self._each_time else None

    @deferred
    async def challenged(self, values: Sequence[bytes]) -> bytes | None:
        """
        Process a 401.

        :param values: The values of WWW-Authenticate.
        :returns: A Deferred that fires with the value of Authorization for the same
            request, or with ``None`` if there is nothing else to say. It fails with
            :class:`NoTicket`.
        """
        token = offered(values)
        under_way, self._steps = self._steps, self._steps + 1
        if token is None or self._steps > MOST_STEPS:
            self._forget()
            return None
        if under_way == 0:
            return await self._begin()
        if not token or self._done:
            # It has seen all that there is.
            self._forget()
            return None
        return await self._step(token)

    @deferred
    async def answered(
        self, values: Sequence[bytes], persistent: Sequence[bytes] = ()
    ) -> bool:
        """
        End a login, if one is under way.

        :param values: The values of WWW-Authenticate of a response that is not 401.
        :param persistent: Those of Persistent-Auth.
        :returns: A Deferred that fires with whether the server has proved that it has
            the key of its service. Some have no proof. It fails with :class:`NoTicket`
            if the proof is wrong.
        """
        if persistent:
            self._each_time = persistent[0].strip().lower() == b"false"
        token = offered(values)
        if self._context is not None and token and not self._done:
            await self._step(token)
        is_proved = self._done
        self._forget()
        return is_proved

    def _forget(self) -> None:
        self._context, self._steps, self._done = None, 0, False

    async def _begin(self) -> bytes:
        self._forget()
        self._steps = 1
        value = await self._step(None)
        if value is None:
            raise NoTicket("the library makes no token for Kerberos")
        return value

    async def _step(self, token: bytes | None) -> bytes | None:
        try:
            self._context, made, self._done = await self._in_thread(
                _step, self._library, self._host, self._cache, self._context, token
            )
        except NoTicket:
            self._forget()
            raise
        return b"Negotiate " + b64encode(made) if made else None


def _load() -> Any:
    try:
        from txbits import _gssapi
    except ImportError as error:
        raise KerberosMissing(
            "Kerberos needs the package gssapi; run pip install 'txbits[kerberos]', "
            f"which needs gcc and libkrb5-dev: {error}"
        ) from None
    return _gssapi


def _step(
    library: Any, host: str, cache: str | None, context: Any, token: bytes | None
) -> tuple[Any, bytes, bool]:
    """Make the next token. This blocks: it may ask the KDC, and look up names."""
    try:
        store = None if cache is None else {"ccache": cache}
        done = library.initiate(
            library.service_name("HTTP", host),
            creds=library.kerberos_credentials("initiate", store=store),
            context=context,
            mech=library.SPNEGO,
            flags=library.MUTUAL,
            input_token=token,
        )
    except library.GSSError as error:
        words = library.in_words(error)
        if token is not None:
            raise NoTicket(f"the Kerberos proof of {host} is wrong: {words}") from None
        raise NoTicket(
            f"there is no Kerberos ticket for HTTP@{host}: {words}{_advice(words)}",
            transient=_AWAY.search(words) is not None,
        ) from None
    return done.context, done.token or b"", not done.more_steps


def _advice(words: str) -> str:
    for pattern, advice in _ADVICE:
        if re.search(pattern, words):
            return f"; {advice}"
    return ""
