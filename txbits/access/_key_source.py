"""
The keys of an issuer: in a file, or where they are published.
"""

from __future__ import annotations

import math
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from txbits._agents import FAILURES, in_words, open_request
from txbits._deferreds import Shared
from txbits._troubles import Troubles
from txbits.access._files import read_public_file
from txbits.access._jwks import Keys, UnusableKeys
from txbits.clocks import steady
from txbits.errors import CredentialsUncheckable, InvalidSetting

_log = Logger()

#: The longest key set, in bytes.
_LONGEST = 256 * 1024

#: Seconds that a fetch may take, and between the beginnings of two.
_TIMEOUT = 10.0
_PAUSE = 60.0

#: Seconds after which keys are fetched again, while those from before are in use.
_OLD = 600.0


class _Useless(Exception):
    """A response that has no keys; the text says why."""


def checked_key_url(url: str) -> str:
    """
    Check the URL of a key set.

    :raises InvalidSetting: If anyone could replace what it leads to.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidSetting(f"{url!a} is not a URL: {error}") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidSetting(f"{url!a} is not a URL")
    if "@" in parts.netloc:
        raise InvalidSetting("the URL of keys must not have a name or a password")
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and _is_this_machine(host)
    )
    if not is_safe:
        raise InvalidSetting(f"{url!a} must begin with https://")
    return url


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class FixedKeys:
    """
    Keys from a file, which is read at once.

    :raises InvalidSetting: If they cannot be used.
    """

    def __init__(self, path: str) -> None:
        content = read_public_file(path, "a JSON Web Key Set", _LONGEST)
        try:
            self._keys = Keys.parse(content)
        except UnusableKeys as error:
            raise InvalidSetting(f"{path} cannot be used: {error}") from None

    async def find(self, algorithm: str, kid: str | None) -> list[Any]:
        """Find the keys that may have signed a token."""
        return self._keys.find(algorithm, kid)


@define(eq=False)
class FetchedKeys:
    """
    Keys that are published at a URL.

    They are fetched when the first token arrives, again in the background when they are
    old, and at most once a minute when a token names a key that is not among them.
    While the server is away, those from before are used.

    :param url: Where they are.
    :param agent: Makes the requests.
    :param reactor: The clock.
    """

    url: str = field(converter=checked_key_url)
    _agent: IAgent
    _reactor: Any
    _clock: IReactorTime = field(init=False)
    _troubles: Troubles = field(init=False)
    _keys: Keys | None = field(default=None, init=False)
    _fetched: float = field(default=-math.inf, init=False)
    _tried: float = field(default=-math.inf, init=False)
    _fetching: Shared[None] = field(factory=Shared, init=False)

    def __attrs_post_init__(self) -> None:
        self._clock = steady(self._reactor)
        self._troubles = Troubles(_log, self._clock.seconds)

    async def find(self, algorithm: str, kid: str | None) -> list[Any]:
        """
        Find the keys that may have signed a token.

        :param kid: The id of the key that the token names.
        :returns: Those keys, none if no key of the issuer has.
        :raises CredentialsUncheckable: If that cannot be known now.
        """
        is_new = self._keys is None
        if is_new:
            await self._fetch()
        elif self._clock.seconds() - self._fetched > _OLD and self._wait() <= 0:
            # Nobody waits for it. If it fails, it is logged.
            self._fetching.run(self._try)
        found = self._required().find(algorithm, kid)
        if found or kid is None or is_new:
            return found
        # The issuer may have begun to use a new one. If that cannot be looked up at the
        # moment, the token may be good: a Windows job would end if it were rejected.
        await self._fetch()
        return self._required().find(algorithm, kid)

    def _required(self) -> Keys:
        if self._keys is None:
            raise CredentialsUncheckable(
                "the keys of the issuer could not be fetched", self._retry_after()
            )
        return self._keys

    def _wait(self) -> float:
        """The seconds until the next fetch may begin."""
        return self._tried + _PAUSE - self._clock.seconds()

    def _retry_after(self) -> int:
        return max(1, math.ceil(self._wait()))

    async def _fetch(self) -> None:
        """
        Fetch the keys, or wait for the fetch that is under way.

        :raises CredentialsUncheckable: If that failed, or has to wait.
        """
        if not self._fetching.is_running and self._wait() > 0:
            raise CredentialsUncheckable(
                "it is too early to fetch the keys of the issuer again",
                self._retry_after(),
            )
        begun = self._clock.seconds()
        await self._fetching.run(self._try)
        if self._fetched < begun:
            raise CredentialsUncheckable(
                "the keys of the issuer could not be fetched", self._retry_after()
            )

    async def _try(self) -> None:
        self._tried = self._clock.seconds()
        try:
            self._keys = Keys.parse(await self._download())
        except (*FAILURES, TimeoutError, _Useless, UnusableKeys) as error:
            said = in_words(error)
            self._troubles.report(
                "keys",
                "Cannot fetch the keys that verify tokens from {url}: {reason}; "
                + (
                    "tokens cannot be checked"
                    if self._keys is None
                    else "the ones from before are used"
                ),
                level=LogLevel.warn,
                url=self.url,
                reason=said,
            )
            return
        self._troubles.over("keys", "The keys are there again: {url}", url=self.url)
        self._fetched = self._clock.seconds()

    def _download(self) -> Deferred[bytes]:
        asking: Deferred[Any] = open_request(
            self._agent,
            "GET",
            self.url,
            headers=Headers(
                {b"Accept": [b"application/json"], b"User-Agent": [b"txbits"]}
            ),
            reactor=self._clock,
        )
        return asking.addCallback(_body).addTimeout(_TIMEOUT, self._clock)


def _body(response: IResponse) -> Deferred[bytes]:
    body = _Body(response.code)
    response.deliverBody(body)
    return body.done


class _Body(Protocol):
    """
    Collects the body of a response.

    :ivar done: Fires with the body, or fails with :class:`_Useless` or with why the
        connection ended. To cancel it closes the connection.
    """

    def __init__(self, status: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._hang_up())
        self._status = status
        self._pieces: list[bytes] = []
        self._length = 0

    def connectionMade(self) -> None:
        if self._status != 200:
            self._fail(_Useless(f"the answer has status {self._status}"))

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._length += len(data)
        if self._length > _LONGEST:
            self._fail(_Useless(f"the answer is longer than {_LONGEST:,} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _fail(self, error: Exception) -> None:
        if not self.done.called:
            self.done.errback(error)
        self._hang_up()

    def _hang_up(self) -> None:
        self._pieces.clear()
        if self.transport is not None:
            self.transport.loseConnection()
