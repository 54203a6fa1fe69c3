"""
The scheme ``negotiate``: Kerberos (RFC 4559), as Windows domains use it.

A client proves with a ticket of its KDC who it is. The server does not ask anyone: the
keys of its keytab decrypt the ticket. So a KDC that is away keeps nobody out who has a
ticket already.

The scheme authenticates connections, as clients of it expect: who has logged in sends
no credentials with later requests. Where a proxy is in between, a connection is not one
client's, and each request needs a ticket of its own.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterable, MutableMapping
from math import inf
from typing import Any
from weakref import WeakSet

from attrs import define, frozen
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits._troubles import Troubles
from txbits.access._keytab import KeytabEntry, check_keytab
from txbits.access._steps import Acceptor, Step, Suspicious, Unusable
from txbits.access._threads import InThread, Queue, new_thread
from txbits.errors import (
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    IRelayable,
    checked_user_name,
)

__all__ = ["NegotiateAuthenticator", "check_keytab"]

_log = Logger()

# What NTLM begins with. A client of Windows without a ticket sends it as Negotiate.
_NTLM = b"NTLMSSP\0"

#: How many tokens one login may take. Kerberos takes one, or three in a rare form.
_MOST_STEPS = 5

#: How long a login may take, in seconds.
_LONGEST_LOGIN = 60.0

#: How many logins may be under way that need another token.
_MOST_LOGINS = 1000

#: How many tokens are checked at a time, and how many more may wait.
_AT_ONCE = 4
_WAITING = 256

#: How many seconds a client waits for a check, such as while a disk does not answer.
_LONGEST_CHECK = 30.0

#: When clients may try again after a trouble of the server, in seconds.
_RETRY_AFTER = 60


@define(eq=False, repr=False)
class _Login:
    """
    A login that needs another token.

    :ivar context: The library's part of it.
    :ivar began: When it began.
    :ivar steps: How many tokens there have been.
    """

    context: Any
    began: float
    steps: int


@frozen
class _LoggedIn:
    """
    Who has logged in on a connection.

    :ivar realm: The realm of the user.
    :ivar until: When the ticket expires.
    """

    identity: Identity
    realm: str
    until: float


@implementer(IAuthenticator, IRelayable)
class NegotiateAuthenticator:
    """
    Logs users in with Kerberos.

    :param reactor: The reactor.
    :param keytab: The path of a file with the keys of ``HTTP/HOST``.
    :param realms: The realms whose users can log in. Their names are without it: list
        only realms that do not give one name to different people.
    :param service: The service whose keys count.
    :param acceptor: Checks the tokens; by default, the library does.
    :param in_thread: Lets it do that, since it blocks.
    :raises InvalidSetting: If the keytab cannot be used, or gssapi is not installed.
        The text is one line. The constructor blocks to read the keytab.
    """

    scheme = "negotiate"
    strength = 300

    def __init__(
        self,
        reactor: Any,
        keytab: str,
        realms: Iterable[str],
        *,
        service: str = "HTTP",
        acceptor: Acceptor | None = None,
        in_thread: InThread | None = None,
    ) -> None:
        self._realms = frozenset(realms)
        if not self._realms or "" in self._realms:
            raise InvalidSetting("negotiate needs the realms whose users can log in")
        self.keys: tuple[KeytabEntry, ...] = check_keytab(keytab, service)
        self._acceptor = _of_library(keytab, service) if acceptor is None else acceptor
        self._clock = reactor
        self._queue = Queue(in_thread or new_thread(reactor), _AT_ONCE, _WAITING)
        self._troubles = Troubles(_log, reactor.seconds)
        # What is remembered about connections, and what is under way on them.
        self._key = object()
        self._logins: WeakSet[_Login] = WeakSet()

    def adopt(self, previous: NegotiateAuthenticator) -> None:
        """Go on with the connections of the authenticator that this one replaces."""
        self._key = previous._key
        self._logins = previous._logins
        self._queue = previous._queue
        self._troubles = previous._troubles

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Ask for a first token."""
        return b"Negotiate"

    def forget(self, credentials: Credentials) -> None:
        """See :class:`~txbits.interfaces.IRemembering`."""
        credentials.connection.pop(self._key, None)

    def login_of(self, connection: MutableMapping[Any, Any]) -> list[Any] | None:
        """See :class:`~txbits.interfaces.IRelayable`."""
        known = connection.get(self._key)
        if not isinstance(known, _LoggedIn):
            return None
        left = known.until - self._clock.seconds()
        return [known.identity.name, known.realm, None if left == inf else left]

    def take_login(self, connection: MutableMapping[Any, Any], login: Any) -> None:
        """See :class:`~txbits.interfaces.IRelayable`."""
        name, realm, left = login
        until = inf if left is None else self._clock.seconds() + left
        identity = Identity(name, self.scheme)
        connection[self._key] = _LoggedIn(identity, realm, until)

    @deferred
    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """See :class:`~txbits.interfaces.IAuthenticator`."""
        if b"authorization" not in credentials.headers:
            return self._logged_in(credentials)
        # Whatever comes now takes the place of what has been before.
        before = credentials.connection.pop(self._key, None)
        token = _token_of(credentials)
        if token is None:
            return None
        login = before if isinstance(before, _Login) else None
        if login is not None:
            self._logins.discard(login)
        if login is None or credentials.is_proxied:
            login = _Login(None, self._clock.seconds(), 0)
        if self._is_over(login):
            raise CredentialsRejected("the login took too long")
        step = await self._step(login, token)
        if step.principal is None:
            self._go_on(credentials, login, step)
        return self._log_in(credentials, step)

    def _logged_in(self, credentials: Credentials) -> Identity | None:
        """Who has logged in on the connection before, if that still counts."""
        known = credentials.connection.get(self._key)
        if (
            isinstance(known, _LoggedIn)
            and known.realm in self._realms
            and self._clock.seconds() < known.until
            and not credentials.is_proxied
        ):
            return known.identity
        credentials.connection.pop(self._key, None)
        return None

    async def _step(self, login: _Login, token: bytes) -> Step:
        work = self._queue.call(self._acceptor.step, login.context, token)
        try:
            step: Step = await work.addTimeout(_LONGEST_CHECK, self._clock)
        except TimedOut:
            reason = f"the library has said nothing for {_LONGEST_CHECK:.0f} s"
            raise self._unusable(Unusable(reason)) from None
        except Suspicious as error:
            self._troubles.report(
                ("refused", error.suspicion),
                "A Kerberos ticket was refused: {reason}. If this happens to all "
                "clients, {suspicion}.",
                level=LogLevel.warn,
                reason=str(error),
                suspicion=error.suspicion,
            )
            raise
        except Unusable as error:
            raise self._unusable(error) from None
        self._troubles.over(("unusable", True), "Kerberos tickets can be checked again")
        return step

    def _unusable(self, error: Unusable) -> CredentialsUncheckable:
        """Tell the operator, and the client."""
        self._troubles.report(
            ("unusable", error.is_general),
            "A Kerberos ticket cannot be checked, and the client is told to try later: "
            "{reason}",
            reason=str(error),
        )
        return CredentialsUncheckable(str(error), _RETRY_AFTER)

    def _go_on(self, credentials: Credentials, login: _Login, step: Step) -> None:
        """Let the client send another token, on the same connection."""
        if credentials.is_proxied:
            raise CredentialsRejected(
                "the login takes several requests, which a proxy may send on different "
                "connections"
            )
        steps = login.steps + 1
        if steps >= _MOST_STEPS:
            raise CredentialsRejected("the login takes too many steps")
        for other in [one for one in self._logins if self._is_over(one)]:
            other.context = None
            self._logins.discard(other)
        if len(self._logins) >= _MOST_LOGINS:
            raise CredentialsUncheckable("too many logins are under way", _RETRY_AFTER)
        login = _Login(step.context, login.began, steps)
        self._logins.add(login)
        credentials.connection[self._key] = login
        raise CredentialsIncomplete(
            "the login takes another step", b"Negotiate " + b64encode(step.token)
        )

    def _is_over(self, login: _Login) -> bool:
        return bool(self._clock.seconds() - login.began >= _LONGEST_LOGIN)

    def _log_in(self, credentials: Credentials, step: Step) -> Identity:
        """Let the client be who its ticket says, on this connection if it has one."""
        name, realm = self._user_of(step.principal or "")
        identity = Identity(name, self.scheme)
        if step.token:
            # It proves to the client who the server is.
            credentials.respond_with(
                b"WWW-Authenticate", b"Negotiate " + b64encode(step.token)
            )
        is_kept = not credentials.is_proxied
        if is_kept:
            lifetime = inf if step.lifetime is None else step.lifetime
            until = self._clock.seconds() + lifetime
            credentials.connection[self._key] = _LoggedIn(identity, realm, until)
        # Without it, clients learn by a 401 that they have to log in each time.
        credentials.respond_with(b"Persistent-Auth", b"true" if is_kept else b"false")
        return identity

    def _user_of(self, principal: str) -> tuple[str, str]:
        """
        Get the name of a user, and the realm.

        :raises CredentialsRejected: If the principal is no user's, or of a realm that
            is not listed.
        """
        name, _, realm = principal.rpartition("@")
        if realm not in self._realms:
            raise CredentialsRejected(
                f"the realm of {principal[:200]!a} is not one of realms"
            )
        if "/" in name or "\\" in name:
            raise CredentialsRejected(
                f"{principal[:200]!a} is a service, a host, or a user's second "
                "identity; only NAME@REALM can log in"
            )
        return checked_user_name(name), realm


def _token_of(credentials: Credentials) -> bytes | None:
    """
    The token that a request has; ``None`` if it is of another scheme.

    :raises CredentialsRejected: If it is malformed.
    """
    said = credentials.authorization
    if said is None or said[0] != "negotiate":
        return None
    try:
        token = a2b_base64(said[1], strict_mode=True)
    except NotBase64:
        token = b""
    if not token:
        raise CredentialsRejected("the credentials of Negotiate are not base64")
    return None if token.startswith(_NTLM) else token


def _of_library(keytab: str, service: str) -> Acceptor:
    try:
        from txbits.access._acceptor import LibraryAcceptor
    except ImportError as error:
        raise InvalidSetting(
            "negotiate needs the package gssapi; run pip install 'txbits[kerberos]', "
            f"which needs gcc and libkrb5-dev: {error}"
        ) from None
    return LibraryAcceptor(keytab, service)
