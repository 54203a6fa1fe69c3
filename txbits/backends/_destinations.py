"""
Which destinations may be stored at all.

Pure: nothing here looks at a store. What can only be known there (symbolic
links, files in the way) is for each backend to find out.
"""

from __future__ import annotations

import re
from functools import lru_cache

from txbits.errors import DestinationForbidden, DestinationIsDirectory

#: The longest name, in bytes of UTF-8, that common file systems and stores take.
MAX_SEGMENT = 255

#: The longest path, in bytes of UTF-8 with its slashes, that Linux takes; and more
#: directories within one another than anybody means.
MAX_PATH = 4096
MAX_DEPTH = 255

# Separators of any system, the colon of drive letters and alternate streams, control
# characters, and lone surrogates, which are what cannot be written as UTF-8.
_NEVER = re.compile("[/\\\\:\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Windows takes these for devices with any extension, with spaces before it, and with
# superscript digits. Files of such names could not be handled from there.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]|CONIN\$|CONOUT\$) *(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)

# The staging areas of ours and of IIS.
RESERVED = frozenset({".bits-sessions", "bits-sessions"})


# Create-Session and Close-Session ask for the same, one after the other.
@lru_cache(256)
def checked_segments(destination: tuple[str, ...]) -> tuple[str, ...]:
    """
    Refuse destinations that no backend stores under.

    What passes is at least one segment, and at most 255, of together at most 4,096
    bytes; none is empty, ``"."`` or ``".."``, holds a
    separator, a colon or a control character, is a Windows device name, is longer
    than 255 bytes, cannot be written as UTF-8, or is a staging area's name
    (``.bits-sessions``, ``BITS-Sessions``) in upper or lower case.

    :param destination: Segments, percent-decoded.
    :returns: The same segments.
    :raises DestinationForbidden: If one of them may not be stored.
    :raises DestinationIsDirectory: If they name a directory: there are none, or the
        last is empty because the URL ended in a slash.
    """
    length = sum(len(segment.encode("utf-8", "replace")) + 1 for segment in destination)
    if len(destination) > MAX_DEPTH or length > MAX_PATH:
        raise DestinationForbidden(
            f"{len(destination)} segments of {length} bytes: at most {MAX_DEPTH} of "
            f"{MAX_PATH} are stored"
        )
    for index, segment in enumerate(destination, 1):
        if not segment:
            if index == len(destination):
                break
            raise DestinationForbidden(f"empty segment in {destination!a}")
        if segment in (".", ".."):
            raise DestinationForbidden(f"{segment!a} in {destination!a}")
        if _NEVER.search(segment):
            raise DestinationForbidden(
                f"a character that no name may hold in {segment!a}"
            )
        if len(segment if segment.isascii() else segment.encode()) > MAX_SEGMENT:
            raise DestinationForbidden(f"over {MAX_SEGMENT} bytes: {segment!a}")
        if _DEVICE.fullmatch(segment):
            raise DestinationForbidden(f"{segment!a} is a device on Windows")
        # casefold, not lower: a file system that ignores case folds more than that.
        if segment.rstrip(" .").casefold() in RESERVED:
            raise DestinationForbidden(f"{segment!a} is reserved for staging")
    if not destination or not destination[-1]:
        raise DestinationIsDirectory(f"{destination!a} names a directory")
    return destination
