"""
Files with secrets, as settings name them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from txbits import _secret_files
from txbits._secret_files import UnusableFile
from txbits.errors import InvalidSetting


def read_secret_file(path: str, what: str, longest: int) -> bytes:
    """
    Read a file with secrets: see :func:`txbits._secret_files.read_secret_file`.

    :raises InvalidSetting: If it cannot be used. The text is one line.
    """
    try:
        return _secret_files.read_secret_file(path, what, longest)
    except UnusableFile as error:
        raise InvalidSetting(str(error)) from None


def read_public_file(path: str, what: str, longest: int) -> bytes:
    """
    Read a file that everyone may read, but not change: see
    :func:`txbits._secret_files.read_public_file`.

    :raises InvalidSetting: If it cannot be used. The text is one line.
    """
    try:
        return _secret_files.read_public_file(path, what, longest)
    except UnusableFile as error:
        raise InvalidSetting(str(error)) from None


def secret_lines(path: str, content: bytes) -> Iterator[tuple[int, str]]:
    """
    Split the content of such a file into lines, without blank lines and comments,
    which begin with ``#``.

    :returns: Each line with its number, from 1.
    :raises InvalidSetting: If a line is not UTF-8.
    """
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise InvalidSetting(
                f"{path}: line {number} is not UTF-8; convert the file with iconv"
            ) from None
        if text and not text.startswith("#"):
            yield number, text
