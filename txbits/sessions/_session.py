"""
An active session, as the manager knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from txbits._deferreds import Shared
from txbits.interfaces import IReleasable, IUploadSession
from txbits.protocol.session import LifeCycle
from txbits.sessions._rules import Rules
from txbits.sessions._turns import Turns

if TYPE_CHECKING:
    from txbits.sessions._notification import Asking


@frozen
class Caller:
    """
    Who sent a packet.

    :ivar user: The name of the authenticated user; ``None`` if anonymous.
    :ivar address: Where it came from, for the log.
    """

    user: str | None = None
    address: str = ""


@define(eq=False)
class Session(Turns):
    """
    An active session: what is stored of it, its life, and who acts in it.

    Thousands are open and idle at a time, so it is kept small.

    :ivar rules: What it goes by.
    :ivar progressed: When bytes of it were last stored, or it was made, by the steady
        clock.
    :ivar asking: The server application is being asked about it.
    :ivar replies: The replies of it that are open.
    """

    upload: IUploadSession = field(kw_only=True)
    life: LifeCycle = field(kw_only=True)
    rules: Rules = field(kw_only=True)
    progressed: float = field(kw_only=True)
    is_found: bool = False
    cancellation: Shared[None] | None = None
    asking: Asking | None = None
    replies: set[IReleasable] | None = None

    @property
    def expires(self) -> float:
        """When its time is out, by the steady clock, unless there is progress."""
        return self.progressed + self.rules.settings.session_timeout

    @property
    def is_idle(self) -> bool:
        """Whether nothing goes on in it."""
        return self.newest is None and self.asking is None and not self.replies
