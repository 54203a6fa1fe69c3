"""
Whether a file that stands at the destination is the one that was uploaded.

The server cannot be asked for more than its length and its age, and often not even for
that. What was there before the upload may be as long.
"""

from __future__ import annotations

from attrs import evolve

from txbits.client._exchange import Found
from txbits.protocol.reactions import Again, Doubt, Later, Refused

#: By how many seconds, at most, the times are wrong that are compared: those on the
#: wire are whole seconds.
_ROUNDING = 2.0


def has_arrived(doubt: Doubt, found: Found | None, length: int, seconds: float) -> bool:
    """
    Tell whether a file is the one that was uploaded.

    :param found: What is at the destination, if the server shows it.
    :param length: How many bytes were uploaded.
    :param seconds: For how long the upload has been under way.
    """
    if found is None or found.length != length:
        return False
    if found.age is None:
        return not doubt.may_be_older
    return found.age <= seconds + _ROUNDING


def not_arrived(
    doubt: Doubt, found: Found | None, length: int
) -> Again | Later | Refused:
    """
    Say of the server's refusal what was found.

    :param found: What is at the destination, which is not what was uploaded.
    :param length: How many bytes were uploaded.
    """
    otherwise = doubt.otherwise
    if not isinstance(otherwise, Refused):
        return otherwise
    words = "the file may have arrived, as an answer to Close-Session was lost"
    if found is not None and found.length != length:
        words = f"the file there has {found.length:,} bytes instead of {length:,}"
    elif found is not None:
        words = "the file there is older than this upload"
    return evolve(otherwise, cause=f"{otherwise.cause}; {words}")
