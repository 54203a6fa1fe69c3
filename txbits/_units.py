"""
Sizes and durations as people write them: ``20G``, ``14d``, or a plain number.

Shared by the server's options, its TOML file and the client's command line.
"""

from __future__ import annotations

import re

_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

#: The accepted forms, for error messages and help texts.
SIZES = "65536, 500K or 20G"
DURATIONS = "90, 15m, 12h or 14d"


def parse_size(text: str) -> int:
    """
    Read a number of bytes; K, M, G or T may follow, which are powers of 1024.

    :returns: The bytes, 0 or more.
    :raises ValueError: If it is not a size; the text tells the accepted forms.
    """
    number, unit = _parted(text, r"([0-9]{1,18})([KMGT]?)", f"a size, such as {SIZES}")
    return int(number) * _FACTORS[unit]


def parse_duration(text: str) -> float:
    """
    Read a number of seconds; s, m, h or d may follow, for another unit.

    :returns: The seconds, 0 or more.
    :raises ValueError: If it is not a duration; the text tells the accepted forms.
    """
    number, unit = _parted(
        text,
        r"([0-9]{0,18}\.?[0-9]{1,18})([smhd]?)",
        f"a duration, such as {DURATIONS}",
    )
    return float(number) * _SECONDS[unit]


def _parted(text: str, form: str, what: str) -> tuple[str, str]:
    """Part a number from its unit."""
    match = re.fullmatch(form, text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}")
    return match[1], match[2]


def shown_duration(seconds: float) -> str:
    """Write a duration in the longest unit that needs no fraction, such as ``14d``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
