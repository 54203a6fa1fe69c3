"""
Files with secrets: passwords, tokens, keys. The server and the client read them.
"""

from __future__ import annotations

import os
import stat


class UnusableFile(ValueError):
    """
    A file cannot be used.

    The text is one line that names the file, says what to do, and has nothing of the
    content.
    """


def read_secret_file(path: str, what: str, longest: int) -> bytes:
    """
    Read a file with secrets, which only its owner and its group may use. This blocks.

    :param what: What it must contain, such as ``"the lines of htpasswd -B"``.
    :param longest: The maximum length of the file, in bytes.
    :returns: The content, never empty.
    :raises UnusableFile: If it cannot be used.
    """
    content, mode = _read(path, longest)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise UnusableFile(
            f"{path} is accessible to every user of this machine; run chmod o-rw on it"
        )
    return _checked(path, content, what, longest)


def read_public_file(path: str, what: str, longest: int) -> bytes:
    """
    Read a file that everyone may read, but not change, such as one of public keys. This
    blocks. Parameters, result and errors are those of :func:`read_secret_file`.
    """
    content, mode = _read(path, longest)
    if mode & stat.S_IWOTH:
        raise UnusableFile(
            f"{path} can be changed by every user of this machine; run chmod o-w on it"
        )
    return _checked(path, content, what, longest)


def _read(path: str, longest: int) -> tuple[bytes, int]:
    """Read a file, and one byte more than it may have; and its mode."""
    if "\0" in path:
        raise UnusableFile(f"{path!a} cannot be the name of a file")
    try:
        # Non-blocking, because opening a pipe may take forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise UnusableFile(f"{path} is not a regular file")
            content = _up_to(longest + 1, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from None
    return content, mode


def _checked(path: str, content: bytes, what: str, longest: int) -> bytes:
    if not content:
        raise UnusableFile(f"{path} is empty; it must contain {what}")
    if len(content) > longest:
        raise UnusableFile(
            f"{path} is longer than {longest:,} bytes; it must contain {what}"
        )
    return content


def _up_to(most: int, descriptor: int) -> bytes:
    """Read *most* bytes, if there are: one call may return fewer than there are."""
    pieces = []
    while most and (piece := os.read(descriptor, most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)
