"""
Logins of the kit: with Negotiate one for each connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.internet.threads import deferToThread

from txbits.check._messages import Message
from txbits.check._target import Target
from txbits.check._wire import Unanswered, Wire
from txbits.client._login import Login
from txbits.client._negotiate import NoTicket
from txbits.client._requests import CertificateRefused


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
    Log in on a connection with Negotiate, if the settings say so. Otherwise find out
    whether the server accepts packets with the credentials that they have.

    :param ping: A packet that changes nothing.
    :raises NotLetIn: If the server does not accept the credentials.
    :raises Unanswered: If there is no answer.
    """
    settings, url = target.settings, target.shown()
    # Each packet has the password, if there is one.
    alone = evolve(settings, credentials=None)
    if settings.negotiate:
        alone = evolve(alone, token=None)
    login = Login(alone, deferToThread)
    try:
        await login.begin(url)
        while True:
            value = await login.answer(ping.method, url)
            own = {} if value is None else {b"Authorization": value}
            wire.send(ping.but(own).to_bytes())
            answer = await wire.answer()
            asked = answer.headers.get(b"www-authenticate", ())
            if answer.status != 401:
                break
            if not await login.challenged(asked) or not wire.is_usable:
                raise _refused(login.describe(asked))
        persistent = answer.headers.get(b"persistent-auth", ())
        await login.answered(answer.status, asked, persistent)
    except NoTicket as error:
        raise NotLetIn(str(error)) from error
    except Unanswered as error:
        if wire.refusal is None:
            raise
        words = f"the server refuses the connection: {wire.refusal}"
        if settings.certificate is None and "certificate required" in wire.refusal:
            words = f"the server requires a client certificate: {wire.refusal}"
            raise NotLetIn(words) from CertificateRefused(words)
        raise NotLetIn(words) from error
    if settings.negotiate and any(b"false" in each.lower() for each in persistent):
        raise NotLetIn("the server requires a new Kerberos ticket with each request")


def _refused(schemes: Sequence[str]) -> NotLetIn:
    words = "the server answered 401 Unauthorized"
    if schemes:
        words += f"; it asks for {' or '.join(schemes)}"
    return NotLetIn(words, 401)
