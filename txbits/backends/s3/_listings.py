"""
Checks that listings are complete.

What a listing does not show counts as missing: parts are sent again, a session is given
up, a destination is free. So a listing that may be truncated is an error, and so is one
that would never end.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from attrs import define, field

from txbits.backends.s3._responses import Response, S3Unfit

#: How many pages in a row may be empty, and others follow.
_MOST_BARE = 100

# botocore reads anything but "true" as false, even "True".
_IS_TRUNCATED = re.compile(rb"<IsTruncated>\s*([^<]*?)\s*</")
_YES_OR_NO = {b"true": True, b"1": True, b"false": False, b"0": False, b"": False}


def goes_on(operation: str, response: Response, count: int, most: int) -> bool:
    """
    Return whether another page follows.

    :param count: How many entries this one has.
    :param most: How many it may have, as the store says, or as requested.
    :raises S3Unfit: If the store does not say.
    """
    found = _IS_TRUNCATED.search(response.body)
    if found is None and count < most:
        return False
    said = None if found is None else _YES_OR_NO.get(found[1].lower())
    if said is None:
        raise S3Unfit(f"S3 does not say whether {operation} listed everything")
    return said


def told(operation: str, entry: Mapping[str, Any], name: str) -> Any:
    """
    Read a field that every entry of a listing has.

    :raises S3Unfit: If this entry does not have it.
    """
    value = entry.get(name)
    if value is None:
        raise S3Unfit(f"S3 answered {operation} with an entry without {name}")
    return value


def listed(operation: str, key: str, is_encoded: bool, prefix: str) -> str:
    """
    Read a key in a listing.

    :param is_encoded: Whether the store says that keys are percent-encoded.
    :param prefix: The prefix of the keys that are listed.
    :raises S3Unfit: If this key does not have it. Then the store encodes keys in
        another way than it says, and keys would not be recognized.
    """
    read = unquote_plus(key) if is_encoded else key
    if not read.startswith(prefix):
        raise S3Unfit(
            f"S3's listing is unreliable: {operation} with the prefix {prefix!a} "
            f"lists {read!a}"
        )
    return read


@define(eq=False)
class Pages:
    """
    The pages of one listing.

    :param operation: The name of the operation in S3's reference.
    :param most: How many pages there may be.
    """

    operation: str
    most: int
    _turned: int = field(default=0, init=False)
    _markers: set[Hashable] = field(factory=set, init=False)
    _first: Hashable = field(default=None, init=False)
    _bare: int = field(default=0, init=False)

    def turn(self, marker: Hashable, first: Hashable) -> None:
        """
        Check that the next page is another one.

        :param marker: Where the next page begins; false if the store does not say.
        :param first: The first entry of the present page; ``None`` if it is empty.
        :raises S3Unfit: If it is not.
        """
        self._turned += 1
        self._bare = 0 if first is not None else self._bare + 1
        if not marker:
            self._fail("says that there is more, but not where to continue")
        if marker in self._markers:
            self._fail("continues at the same place twice")
        if first is not None and first == self._first:
            self._fail("returns the same page again")
        if self._bare > _MOST_BARE or self._turned > self.most:
            self._fail("does not end")
        self._markers.add(marker)
        self._first = first

    def _fail(self, why: str) -> None:
        raise S3Unfit(f"S3's listing is unreliable: {self.operation} {why}")
