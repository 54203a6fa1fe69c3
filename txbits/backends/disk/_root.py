"""
Whether the path of a root still leads to the directory that was opened at the start.

A volume may be mounted there later, or a directory renamed. What this process opened
stays where it is, and whatever it publishes appears there, where nobody looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from txbits.backends.disk._files import Files
from txbits.errors import BackendError

_log = Logger()

# How long, in seconds, what was seen when a file was published counts for its Ack. A
# volume that is mounted between them hides no more than one mounted after both.
_MOMENT = 0.05


@define(eq=False)
class Root:
    """
    The path of a root.

    :ivar path: As it was given; links on it are followed.
    :param fd: The directory that it led to, opened.
    :param identity: Its device and inode.
    :param seconds: A clock.
    """

    _files: Files
    path: str
    _fd: int
    _identity: tuple[int, int]
    _seconds: Callable[[], float]
    _seen: float = field(default=float("-inf"), init=False)
    _is_astray: bool = field(default=False, init=False)

    def check(self) -> os.stat_result:
        """
        Look before something is acknowledged that would have to be there.

        :returns: What is known of the directory.
        :raises BackendError: If the path leads elsewhere, or nowhere.
        """
        try:
            there = self._files.stat(self.path)
        except OSError as error:
            raise self._astray(str(error.strerror)) from error
        if (there.st_dev, there.st_ino) != self._identity:
            # Some file systems give numbers anew.
            opened = self._files.fstat(self._fd)
            if not os.path.samestat(there, opened):
                raise self._astray("the path leads to another directory")
            self._identity = there.st_dev, there.st_ino
        if self._is_astray:
            self._is_astray = False
            _log.info("{root} is the original directory again", root=self.path)
        self._seen = self._seconds()
        return there

    def check_again(self) -> None:
        """
        Look once more, unless that was done a moment ago.

        :raises BackendError: As :meth:`check`.
        """
        if not 0 <= self._seconds() - self._seen < _MOMENT:
            self.check()

    def _astray(self, reason: str) -> BackendError:
        self._seen = float("-inf")
        fault = BackendError(
            f"{self.path} is no longer the directory that txbits opened: {reason}"
        )
        if not self._is_astray:
            self._is_astray = True
            _log.error(
                "{root} is no longer the directory that txbits opened: {reason}; files "
                "would be published out of sight, so uploads are neither created nor "
                "closed until it is restored or txbits restarts",
                root=self.path,
                reason=reason,
            )
        return fault
