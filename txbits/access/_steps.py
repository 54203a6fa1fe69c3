"""
One step of a login by Kerberos, and how it fails: what the library of the system and
the authenticator say to each other.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen

from txbits.errors import CredentialsRejected


class Unusable(Exception):
    """
    The server cannot check a ticket, whatever the client has.

    The text says why, in one line.

    :ivar is_general: Whether that holds for all tickets.
    """

    def __init__(self, message: str, *, is_general: bool = True) -> None:
        super().__init__(message)
        self.is_general = is_general


class Suspicious(CredentialsRejected):
    """
    A ticket is refused, but if that happens to everybody, the server is to blame.

    :ivar suspicion: What may be wrong with the server.
    """

    def __init__(self, message: str, suspicion: str) -> None:
        super().__init__(message)
        self.suspicion = suspicion


@frozen(repr=False)
class Step:
    """
    The result of one token.

    :ivar token: The answer to it, empty if there is none.
    :ivar principal: Who the client is, with its realm; ``None`` if the client has to
        send another token.
    :ivar lifetime: For how many seconds the ticket is still good, including what the
        library allows for clocks that differ; ``None`` if there is no limit.
    :ivar context: What the next token belongs to.
    """

    token: bytes
    principal: str | None
    lifetime: float | None = None
    context: Any = None


class Acceptor(Protocol):
    """Checks the tokens of clients."""

    def step(self, context: Any, token: bytes) -> Step:
        """
        Take a client's token. This blocks.

        :param context: What earlier tokens have led to; ``None`` for the first.
        :raises CredentialsRejected: If the client is to blame.
        :raises Unusable: If the server is.
        """
        ...
