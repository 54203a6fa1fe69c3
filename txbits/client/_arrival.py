"""
Whether the file at the destination is the one that was uploaded.

The server tells at most its length and age. An older file may have the same length.
"""

from __future__ import annotations

from attrs import evolve

from txbits.client._exchange import Found
from txbits.protocol.reactions import Again, Doubt, Later, Refused

#: The maximum error of a comparison of times, in seconds: the headers have whole
#: seconds.
_ROUNDING = 2.0


def has_arrived(doubt: Doubt, found: Found | None, length: int, seconds: float) -> bool:
    """
    Check whether a file is the one that was uploaded.

    :param found: The file at the destination, if the server shows it.
    :param length: The length of the uploaded file.
    :param seconds: The age of the upload.
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
    Add what was found to the server's refusal.

    :param found: The file at the destination, which is another one.
    :param length: The length of the uploaded file.
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
