"""
Figures in words, for the operator's page.
"""

from __future__ import annotations

import time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """A number of bytes, in the unit that needs at most four digits."""
    for unit in _UNITS:
        if count < 1023.5 or unit == _UNITS[-1]:
            break
        count /= 1024
    digits = 0 if unit == "B" or count >= 99.95 else 1
    return f"{count:.{digits}f} {unit}"


def number(count: float) -> str:
    """A number, with a fraction if it is small."""
    if count == int(count) or count >= 99.95:
        return f"{count:,.0f}"
    return f"{count:.1f}" if count >= 0.1 else f"{count:.2g}"


def size_rate(bytes_per_second: float) -> str:
    """Bytes per second."""
    return f"{size(bytes_per_second)}/s"


def rate(per_second: float) -> str:
    """Something per second."""
    return f"{number(per_second)}/s"


def duration(seconds: float) -> str:
    """A duration in one unit, rounded down, such as ``3 min``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 * length if unit == "d" else length):
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def ago(seconds: float) -> str:
    """How long ago something was. What was just now does not change each second."""
    return f"{duration(seconds)} ago" if seconds >= 60 else "just now"


def moment(at: float) -> str:
    """A time, such as ``2026-11-30 18:08:33 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def machine_readable(at: float) -> str:
    """A time, for a program."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def plural(count: int, one: str, many: str = "") -> str:
    """A number of things."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
