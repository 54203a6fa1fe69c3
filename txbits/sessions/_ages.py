"""
The ages of sessions and closes, which do not change when the wall clock is set.

A backend gives the time of a session's progress in seconds since the epoch, since it is
compared over restarts. It is translated as soon as a session is found; from then on its
age is measured by the steady clock. The age of sessions from before the start of this
process is that by the wall clock at the start, plus the time since then.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txbits.clocks import Wall
from txbits.sessions.settings import CLOSE_MEMORY

#: Seconds by which a wall clock may drift without having been set.
_WANDERS = 1.0

#: How many settings of the wall clock are remembered; with more, closes are kept
#: longer.
_MOST_SETTINGS = 16


@define
class _Setting:
    """
    A period between two settings of the wall clock.

    :ivar ahead: Seconds that it was ahead of the steady clock.
    :ivar until: The latest time when it may have been, by the steady clock.
    """

    ahead: float
    until: float


@define(eq=False)
class Ages:
    """
    Translates times of the wall clock into those of the steady clock.

    :param clock: The steady clock.
    :param wall: The wall clock.
    :param is_shared: Whether other processes act in the sessions: a time from the
        backend may then be later than the start of this process.
    """

    _clock: IReactorTime
    _wall: Wall
    _is_shared: bool
    _started: float = field(init=False)
    _started_on: float = field(init=False)
    _settings: list[_Setting] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Note the times of both clocks at the start of the manager."""
        self._started, self._started_on = self._clock.seconds(), self._wall()
        self._settings = [_Setting(self._started_on - self._started, self._started)]

    def steadily(self, epoch: float) -> float:
        """
        Translate a time of the wall clock into one of the steady clock.

        :param epoch: The time in seconds since the epoch, from the store. A time in the
            future is from a wrong clock, and counts as now.
        """
        if self._is_shared:
            return self._clock.seconds() - max(0.0, self._wall() - epoch)
        # Only this process acts in sessions, and it has those in which it did.
        return self._started - max(0.0, self._started_on - epoch)

    def closed_before(self) -> float:
        """
        Tell the time from which on closes are remembered, in seconds since the epoch.

        If the clock was set forward, earlier closes have not become older: as long as
        closes are remembered, the lowest setting of the clock in that time counts.
        """
        now = self._clock.seconds()
        ahead = self._wall() - now
        settings = self._settings
        # It may have been set at any time since the last call.
        settings[-1].until = now
        if abs(ahead - settings[-1].ahead) > _WANDERS:
            settings.append(_Setting(ahead, now))
        while settings[0].until < now - CLOSE_MEMORY:
            del settings[0]
        if len(settings) > _MOST_SETTINGS:
            first = settings.pop(0)
            settings[0].ahead = min(settings[0].ahead, first.ahead)
        return now + min(one.ahead for one in settings) - CLOSE_MEMORY
