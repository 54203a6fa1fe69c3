"""
Authentication by a checker of :mod:`twisted.cred`: for PAM, LDAP, databases, and all
else that knows passwords.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import implementer

from txbits._deferreds import deferred, let_go_of_frames
from txbits._ledger import Ledger
from txbits.access._checks import Checks
from txbits.access._threads import Queue
from txbits.access.basic import basic_challenge, read_basic
from txbits.clocks import steady
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    checked_user_name,
)

#: How many checks run at the same time, and how many more may wait.
_MOST_AT_ONCE = 16
_MOST_WAITING = 256

#: Seconds after which clients may try again if the checker has failed.
_RETRY_AFTER = 30


@implementer(IAuthenticator)
class CheckerAuthenticator:
    """
    Asks a checker of :mod:`twisted.cred` about the name and the password of HTTP Basic
    authentication.

    It is asked again only when a success is a minute old. ``UnauthorizedLogin`` means
    that name or password are wrong. If it fails with anything else, or does not answer
    in time, clients are asked to try later, and the log says so.

    :param reactor: The clock.
    :param checker: An ``ICredentialsChecker`` for ``IUsernamePassword``. It gets name
        and password in UTF-8, and must not block. What its Deferred fires with is the
        name of the user, or an :class:`~txbits.interfaces.Identity`, which can have
        groups.
    :param realm: What clients show to the user who has to type a password.
    :param scheme: What permissions and the log call this scheme.
    :param life: For how many seconds a success is remembered: for so long, a user who
        was removed can go on.
    :param timeout: How many seconds a check may take.
    :raises InvalidSetting: If that is no such checker.
    """

    strength = 100

    def __init__(
        self,
        reactor: Any,
        checker: ICredentialsChecker,
        *,
        realm: str = "txbits",
        scheme: str = "basic",
        life: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        if not (
            ICredentialsChecker.providedBy(checker)
            and IUsernamePassword in checker.credentialInterfaces
        ):
            raise InvalidSetting(f"{checker!r} is no checker of names and passwords")
        self.scheme = scheme
        self._checker = checker
        self._challenge = basic_challenge(realm)
        self._timeout = timeout
        self._clock = steady(reactor)
        queue = Queue(maybeDeferred, _MOST_AT_ONCE, _MOST_WAITING)
        self._checks = Checks(reactor, life=life, queue=queue)

    def adopt(self, previous: CheckerAuthenticator) -> None:
        """Go on counting the failures. Successes are checked again."""
        self._checks.adopt_failures(previous._checks)

    def share(self, ledger: Ledger, kind: str) -> None:
        """
        Count failures together with other workers, and know whom they have let in.
        ``twistd txbits`` calls this.

        :param ledger: Counts them.
        :param kind: Names what is checked, in all workers.
        """
        self._checks.share(ledger, kind)

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Ask for a name and a password."""
        return self._challenge

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        """See :class:`~txbits.interfaces.IAuthenticator`."""
        said = credentials.authorization
        if said is None or said[0] != "basic":
            return succeed(None)
        checks = self._checks
        key = checks.key(said[1])
        known = checks.known(key, _nothing)
        if known is not None:
            return succeed(known)
        try:
            name, password = read_basic(said[1])
        except CredentialsRejected as error:
            return fail(error)

        def begin(is_urgent: bool) -> Deferred[Identity | None]:
            return checks.queue.call(
                self._check, name.encode(), password, is_urgent=is_urgent
            )

        return checks.ask(key, None, name, credentials.address, begin)

    @deferred
    async def _check(self, name: bytes, password: bytes) -> Identity | None:
        asking: Deferred[Any] = maybeDeferred(
            self._checker.requestAvatarId, UsernamePassword(name, password)
        )
        try:
            return self._identity(await asking.addTimeout(self._timeout, self._clock))
        except UnauthorizedLogin as error:
            let_go_of_frames(error)
            return None
        except CredentialsRejected:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise CredentialsUncheckable(
                f"{type(self._checker).__name__} failed: {said}", _RETRY_AFTER
            ) from error

    def _identity(self, avatar: object) -> Identity:
        if isinstance(avatar, Identity):
            checked_user_name(avatar.name)
            return avatar
        if isinstance(avatar, bytes):
            avatar = avatar.decode()
        if not isinstance(avatar, str):
            raise TypeError(f"{type(avatar).__name__} is not the name of a user")
        return Identity(checked_user_name(avatar), self.scheme)


def _nothing(name: str) -> None:
    """What a checker compares credentials with is not known."""
