"""
Which destinations no backend accepts.

Nothing here looks at a store. Each backend checks the rest, such as symbolic links and
existing files.
"""

from __future__ import annotations

import re
from functools import lru_cache

from txbits.backends._naming import shown_path
from txbits.errors import DestinationForbidden, DestinationIsDirectory

#: The longest name, in bytes of UTF-8, that common file systems and stores allow.
MAX_SEGMENT = 255

#: The longest path, in bytes of UTF-8 with its slashes, that Linux allows; and more
#: levels of directories than anybody needs.
MAX_PATH = 4096
MAX_DEPTH = 255

# Separators of any system, the colon of drive letters and alternate streams, control
# characters, and lone surrogates, which UTF-8 cannot encode.
_NEVER = re.compile("[/\\\\:\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Windows treats these as devices, with any extension, with spaces before it, and with
# superscript digits. It could not open files of such names.
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]|CONIN\$|CONOUT\$) *(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)

# The staging areas of txbits and of IIS.
RESERVED = frozenset({".bits-sessions", "bits-sessions"})


# Create-Session and Close-Session ask for the same, one after the other.
@lru_cache(256)
def checked_segments(destination: tuple[str, ...]) -> tuple[str, ...]:
    """
    Refuse destinations that no backend accepts.

    A destination has 1 to 255 segments of together at most 4,096 bytes. No segment is
    empty, ``"."`` or ``".."``, contains a separator, a colon or a control character, is
    a Windows device name, is longer than 255 bytes, cannot be encoded as UTF-8, or is
    the name of a staging area (``.bits-sessions``, ``BITS-Sessions``) in any case.

    :param destination: Segments, percent-decoded.
    :returns: The same segments.
    :raises DestinationForbidden: If one of them is not allowed.
    :raises DestinationIsDirectory: If they name a directory: there are none, or the
        last is empty because the URL ends in a slash.
    """
    length = len("/".join(("", *destination)).encode("utf-8", "replace"))
    if len(destination) > MAX_DEPTH or length > MAX_PATH:
        raise DestinationForbidden(
            f"{len(destination)} segments of {length} bytes: at most {MAX_DEPTH} of "
            f"{MAX_PATH} are allowed"
        )
    for index, segment in enumerate(destination, 1):
        if not segment:
            if index == len(destination):
                break
            raise DestinationForbidden(f"empty segment in {shown_path(destination)}")
        if segment in (".", ".."):
            raise DestinationForbidden(f"{segment!a} in {shown_path(destination)}")
        if _NEVER.search(segment):
            raise DestinationForbidden(
                f"a character that is not allowed in names: {segment!a}"
            )
        if len(segment if segment.isascii() else segment.encode()) > MAX_SEGMENT:
            raise DestinationForbidden(f"over {MAX_SEGMENT} bytes: {segment!a}")
        if _DEVICE.fullmatch(segment):
            raise DestinationForbidden(f"{segment!a} is a device on Windows")
        # casefold, not lower: file systems that ignore case fold more than that.
        if segment.rstrip(" .").casefold() in RESERVED:
            raise DestinationForbidden(f"{segment!a} is reserved for staging")
    if not destination or not destination[-1]:
        raise DestinationIsDirectory(f"{shown_path(destination)} names a directory")
    return destination
