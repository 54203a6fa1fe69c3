"""
The chain whose end allows an Ack, and the sharing of what is under way.
"""

from __future__ import annotations

from typing import TypeVar

from txbits.interfaces import IReleasable

T = TypeVar("T")


async def release_in_order(*links: IReleasable) -> None:
    """
    Release one after the other, each when the one before it is gone.

    A failure ends the chain there and is raised. Since every release may be repeated,
    the chain is simply walked again then, from its beginning.
    """
    for link in links:
        await link.release()
