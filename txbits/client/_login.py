"""
Logging in to a server: which scheme, and with what.

A server says with 401 which schemes it accepts. Of those for which there are
credentials, the strongest is used: Negotiate, which proves who both sides are; Digest,
which does not reveal the password; Bearer, whose token may be good for little; Basic. A
token that is all there is goes with the first request already, because many servers ask
for none. Without a Kerberos ticket the others are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred

from txbits.client._auth import Authorizer, Challenge, distinct, parse_challenges
from txbits.client._negotiate import (
    KerberosMissing,
    Negotiator,
    NoTicket,
    offered,
)
from txbits.client._url import target_of
from txbits.client.settings import ConnectionSettings, InvalidSettings
from txbits.protocol.codec import quoted

#: What is said of a token if the server gives no reason.
REFUSED_TOKEN = "the token was refused, and may have expired"  # noqa: S105

#: How much is repeated of what a server says about a token.
_LONGEST_REASON = 100


@define(eq=False)
class Login:
    """
    Logs in to one server at a time, on one connection at a time.

    Call :meth:`begin` for each request, :meth:`answer` for each attempt,
    :meth:`challenged` for each 401, and :meth:`answered` at the end.

    :ivar settings: The credentials.
    :ivar in_thread: Calls a function that blocks, and returns a Deferred.
    :ivar make_negotiator: Makes what speaks Negotiate with a host.
    :raises InvalidSettings: If the settings need a package that is not installed.
    """

    settings: ConnectionSettings
    in_thread: Callable[..., Deferred[Any]]
    make_negotiator: Callable[..., Negotiator] = Negotiator
    _passwords: Authorizer = field(init=False)
    _negotiator: Negotiator | None = field(init=False, default=None)
    _host: str = field(init=False, default="")
    _proof: bytes | None = field(init=False, default=None, repr=False)
    _says_token: bool = field(init=False)
    _has_others: bool = field(init=False)
    _token: str | None = field(init=False, default=None, repr=False)
    _is_read_again: bool = field(init=False, default=False)
    _remarks: dict[str, str] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self._passwords = Authorizer(settings.credentials)
        self._says_token = settings.says_token_unasked
        self._has_others = settings.has_token or settings.credentials is not None
        if settings.negotiate:
            try:
                self._negotiator = self.make_negotiator("")
            except KerberosMissing as error:
                raise InvalidSettings(str(error)) from error

    async def begin(self, url: str) -> None:
        """
        Begin a request.

        :raises NoTicket: If the request needs a ticket, and there is none.
        """
        self._is_read_again = False
        self._remarks.clear()
        self._proof = None
        if self._negotiator is None:
            return
        host = urlsplit(url).hostname or ""
        if host != self._host:
            self._host = host
            self._negotiator = self.make_negotiator(host, in_thread=self.in_thread)
        self._proof = await self._negotiator.opening()

    async def answer(self, method: bytes, url: str) -> bytes | None:
        """
        Get the value of the Authorization header for an attempt.

        :returns: The value, or ``None`` if nothing is to be said.
        :raises InvalidSettings: If the token cannot be read, or cannot be sent to the
            URL.
        """
        if self._proof is not None:
            proof, self._proof = self._proof, None
            return proof
        if self._says_token:
            self.settings.check_way_of_token(url)
            if self._token is None:
                self._token = await self._read_token()
            return b"Bearer " + self._token.encode("ascii")
        return self._passwords.answer(method, target_of(url))

    async def challenged(self, values: Sequence[bytes]) -> bool:
        """
        Process a 401.

        :param values: The values of WWW-Authenticate.
        :returns: Whether there is an answer that was not sent before.
        :raises NoTicket: If there is no ticket, and no other credentials.
        :raises InvalidSettings: If the token cannot be read.
        """
        if self._negotiator is None or offered(values) is None:
            return await self._challenged_otherwise(values)
        is_begin = not self._negotiator.is_logging_in
        try:
            self._proof = await self._negotiator.challenged(values)
        except NoTicket as error:
            self._remarks["negotiate"] = str(error)
            if is_begin and await self._challenged_otherwise(values):
                return True
            if self._has_others and not error.transient:
                # The answer tells what came of each.
                return False
            raise
        if self._proof is None:
            self._remarks["negotiate"] = "the Kerberos ticket was refused"
        return self._proof is not None

    async def answered(
        self, status: int, values: Sequence[bytes], persistent: Sequence[bytes]
    ) -> None:
        """
        Process another response.

        :param values: The values of WWW-Authenticate.
        :param persistent: Those of Persistent-Auth.
        :raises NoTicket: If the server has not proved who it is during a login that it
            has accepted.
        """
        negotiator = self._negotiator
        if negotiator is None or not negotiator.is_logging_in or status == 401:
            return
        is_proved = await negotiator.answered(values, persistent)
        # A refusal may come from something in between, and nothing depends on it.
        if not is_proved and status < 400:
            raise NoTicket(
                f"{self._host} has not proved that it is HTTP@{self._host}, and is not "
                "trusted"
            )

    @property
    def keeps_connection(self) -> bool:
        """Whether the next attempt must be on the connection of the last one."""
        return self._proof is not None

    def describe(self, values: Sequence[bytes]) -> tuple[str, ...]:
        """
        Name the schemes that the server offers, each with what is in its way.

        :param values: The values of WWW-Authenticate.
        """
        return distinct(self._in_words(each) for each in parse_challenges(values))

    def _in_words(self, challenge: Challenge) -> str:
        name = {"negotiate": "Negotiate", "bearer": "Bearer"}.get(challenge.scheme)
        if name is None:
            return self._passwords.in_words(challenge)
        remark = self._remarks.get(challenge.scheme)
        return name if remark is None else f"{name} ({remark})"

    async def _challenged_otherwise(self, values: Sequence[bytes]) -> bool:
        best = self._passwords.best(values)
        challenges = parse_challenges(values)
        is_asked = any(each.scheme == "bearer" for each in challenges)
        prefers_token = is_asked and (best is None or best.scheme == "basic")
        if self._says_token or (self.settings.has_token and prefers_token):
            return await self._has_other_token(challenges)
        return self._passwords.challenged(values)

    async def _has_other_token(self, challenges: Sequence[Challenge]) -> bool:
        if not self._says_token:
            self._says_token = True
            return True
        if self.settings.token_file is not None and not self._is_read_again:
            # Something may have renewed it since.
            self._is_read_again = True
            refused, self._token = self._token, await self._read_token()
            if self._token != refused:
                return True
        self._remarks["bearer"] = _in_words(challenges)
        return False

    async def _read_token(self) -> str:
        token: str | None
        if self.settings.token_file is None:
            token = self.settings.token
        else:
            token = await self.in_thread(self.settings.get_token)
        return token or ""


def _in_words(challenges: Sequence[Challenge]) -> str:
    """Why a token was refused (RFC 6750, section 3)."""
    for challenge in challenges:
        if challenge.scheme == "bearer":
            given = challenge.parameters
            reason = given.get("error_description")
            if reason:
                return f"the token was refused: {quoted(reason[:_LONGEST_REASON])}"
    return REFUSED_TOKEN
