"""
An active session, as the manager knows it.
"""

from __future__ import annotations

from attrs import define, field

from txbits.interfaces import IUploadSession
from txbits.protocol.session import LifeCycle, resumed
from txbits.sessions._release import Shared
from txbits.sessions._turns import Turns


@define(eq=False)
class Session(Turns):
    """
    An active session: what is stored of it, its life, and who acts in it.

    Thousands are open and idle at a time, so it is kept small.
    """

    upload: IUploadSession = field(kw_only=True)
    life: LifeCycle = field(kw_only=True)
    is_found: bool = False
    cancellation: Shared[None] | None = None


def life_of(upload: IUploadSession) -> LifeCycle:
    """The life of a session as the store has it."""
    return resumed(
        offset=upload.offset,
        total=upload.total,
        is_published=upload.published,
        is_releasing=upload.releasing,
        is_in_doubt=upload.in_doubt,
    )
