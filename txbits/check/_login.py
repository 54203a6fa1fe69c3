"""
Logins of the kit, one for each connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.threads import deferToThread

from txbits.check._messages import Message
from txbits.check._target import Target
from txbits.check._wire import Silence, Unanswered, Wire
from txbits.client._login import Login
from txbits.client._negotiate import Negotiator, NoTicket
from txbits.client._requests import CertificateRefused

_CHALLENGE = b"www-authenticate"
_PERSISTENT = b"persistent-auth"


class NotLetIn(Exception):
    """
    The server does not accept the credentials, or requires some; the text is one line.

    :ivar status: The status of the answer, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


async def log_in(wire: Wire, target: Target, ping: Message) -> None:
    """
    Log in on a connection with Negotiate.

    :param ping: A packet that changes nothing.
    :raises NotLetIn: If that fails.
    :raises Unanswered: If there is no answer.
    """
    host = target.url.host
    negotiator = Negotiator(host)
    try:
        value = await negotiator.opening()
        while True:
            wire.send(ping.but({b"Authorization": value}).to_bytes())
            answer = await wire.answer()
            asked = answer.headers.get(_CHALLENGE, ())
            if answer.status != 401:
                break
            value = await negotiator.challenged(asked)
            if value is None or not wire.is_usable:
                raise _refused(target, asked)
        is_begun = negotiator.is_logging_in
        persistent = answer.headers.get(_PERSISTENT, ())
        is_proved = await negotiator.answered(asked, persistent)
    except NoTicket as error:
        raise NotLetIn(str(error)) from error
    if is_begun and not is_proved and answer.is_success:
        raise NotLetIn(f"{host} has not proved that it is HTTP@{host}")
    if is_begun and any(each.strip().lower() == b"false" for each in persistent):
        raise NotLetIn("the server requires a new Kerberos ticket with each request")


async def knock(wire: Wire, target: Target, ping: Message) -> None:
    """
    Find out whether the server accepts packets with the credentials that they have.

    :param ping: A packet that changes nothing.
    :raises NotLetIn: If it does not. Other answers, and none, say nothing.
    """
    wire.send(ping.to_bytes())
    try:
        answer = await wire.answer()
    except Silence:
        return
    except Unanswered as error:
        alert = wire.refusal
        if alert is None:
            return
        words = f"the server refuses the connection: {alert}"
        if target.settings.certificate is None and "certificate required" in alert:
            words = f"the server requires a client certificate: {alert}"
            raise NotLetIn(words) from CertificateRefused(words)
        raise NotLetIn(words) from error
    if answer.status == 401:
        raise _refused(target, answer.headers.get(_CHALLENGE, ()))


def _refused(target: Target, asked: Sequence[bytes]) -> NotLetIn:
    schemes = Login(target.settings, deferToThread).describe(asked)
    words = "the server answered 401 Unauthorized"
    if schemes:
        words += f"; it asks for {' or '.join(schemes)}"
    return NotLetIn(words, 401)
