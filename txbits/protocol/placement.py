"""
Where a fragment lies compared with the bytes that are stored.

The server has stored a prefix of the file, *held* bytes long. If a fragment begins
inside it, or right at its end, the bytes that are stored are skipped, and the rest is
appended. If it begins beyond, it is out of step, and answered with 416 and the offset
that is expected (MC-BUP 3.2.5.2.6).
"""

from __future__ import annotations

from attrs import frozen

from txbits.protocol._fields import ContentRange


@frozen
class Placement:
    """
    What to do with the bytes of a fragment, in order.

    :ivar skip: How many bytes at its beginning are stored already.
    :ivar append: How many bytes follow them, to be stored.
    """

    skip: int
    append: int


def place(content_range: ContentRange, held: int) -> Placement | None:
    """
    Place a fragment.

    :param content_range: The bytes that the fragment carries.
    :param held: How many bytes of the file are stored.
    :returns: Its placement, or ``None`` if it is out of step.
    """
    if content_range.first > held:
        return None
    skip = min(held - content_range.first, content_range.length)
    return Placement(skip, content_range.length - skip)
