"""
The server application of a virtual directory, as settings describe it.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Literal

from attrs import field, frozen

from txbits.errors import InvalidSetting

#: A secret of fewer bytes can be found by trying.
_SHORTEST_SECRET = 16

#: No secret is longer; a file that is, is another one than was meant.
_LONGEST_SECRET = 4096


@frozen(kw_only=True)
class Notification:
    """
    How a server application is told of complete uploads.

    :ivar url: Where it is asked (BITSServerNotificationURL).
    :ivar by: How it gets the upload (BITSServerNotificationType).
    :ivar timeout: Seconds for each step that has no time-out of its own.
    :ivar send_timeout: Seconds for which nothing of the request may be taken.
    :ivar response_timeout: Seconds that the headers of the answer may take.
    :ivar reply_timeout: Seconds for which nothing of a reply may come.
    :ivar secret_file: The file that the secret was read from.
    :ivar secret: Signs requests; ``None`` if they are not to be signed.
    """

    url: str
    by: Literal["reference", "value"] = "value"
    timeout: float = 300
    send_timeout: float | None = None
    response_timeout: float | None = None
    reply_timeout: float | None = None
    secret_file: str | None = None
    secret: bytes | None = field(default=None, repr=False)

    @property
    def timeouts(self) -> dict[str, Any]:
        """The three time-outs by their names, as they hold."""
        return {
            name: self.timeout if seconds is None else seconds
            for name, seconds in (
                ("send_timeout", self.send_timeout),
                ("response_timeout", self.response_timeout),
                ("reply_timeout", self.reply_timeout),
            )
        }


def read_secret(path: str) -> bytes:
    """
    Read a secret from a file, without the line end that editors put there.

    :raises InvalidSetting: If there is none that keeps one; the text goes behind the
        key.
    """
    if "\0" in path:
        raise InvalidSetting(f"{path!a} is no name of a file")
    try:
        # A pipe would be waited for without an end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise InvalidSetting(f"{path} is not a plain file")
            content = os.read(descriptor, _LONGEST_SECRET + len(b"\r\n") + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InvalidSetting(
            f"{path} is open to every user of this machine: chmod o-rw it"
        )
    secret = content.rstrip(b"\r\n")
    if not _SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET:
        raise InvalidSetting(
            f"{path} must hold {_SHORTEST_SECRET} to {_LONGEST_SECRET:,} bytes"
        )
    return secret
