"""
How old sessions and closes are, whatever the wall clock is set to meanwhile.

A backend tells when a session made progress in seconds since the epoch, since that is
to be compared over restarts. It is translated as soon as a session is met; from then on
its age goes by the steady clock. What was there before the start of this process is
seen by the wall clock as that was at the start, and grows older steadily.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txbits.clocks import Wall
from txbits.sessions.settings import CLOSE_MEMORY

#: Seconds by which a wall clock may wander without having been set.
_WANDERS = 1.0

#: So many settings of the wall clock are told apart; beyond, closes are kept longer.
_MOST_SETTINGS = 16


@define
class _Setting:
    """
    What the wall clock was set to for a while.

    :ivar ahead: Seconds that it was ahead of the steady clock.
    :ivar until: When it may still have been, by the steady clock.
    """

    ahead: float
    until: float


@define(eq=False)
class Ages:
    """
    Translates times of the wall clock into those of the steady one.

    :param clock: The steady clock.
    :param wall: The wall clock.
    :param is_shared: Whether other processes move sessions on: a time that a backend
        tells of may then be one of after our start.
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
        """Note what both clocks say at the start of the manager."""
        self._started, self._started_on = self._clock.seconds(), self._wall()
        self._settings = [_Setting(self._started_on - self._started, self._started)]

    def steadily(self, epoch: float) -> float:
        """
        Tell by the steady clock when something was.

        :param epoch: When it was, in seconds since the epoch, as the store has it. What
            lies in the future is of a clock that was wrong: it was just now.
        """
        if self._is_shared:
            return self._clock.seconds() - max(0.0, self._wall() - epoch)
        # Nobody but this process moves sessions on, and those that it does it knows.
        return self._started - max(0.0, self._started_on - epoch)

    def closed_before(self) -> float:
        """
        Tell from when on closes are remembered, in seconds since the epoch.

        Those that were noted before the clock was set forward are not older for that:
        for as long as closes are remembered, the least of what the clock was set to
        counts.
        """
        now = self._clock.seconds()
        ahead = self._wall() - now
        settings = self._settings
        # It may have been set at any time since the last look.
        settings[-1].until = now
        if abs(ahead - settings[-1].ahead) > _WANDERS:
            settings.append(_Setting(ahead, now))
        while settings[0].until < now - CLOSE_MEMORY:
            del settings[0]
        if len(settings) > _MOST_SETTINGS:
            first = settings.pop(0)
            settings[0].ahead = min(settings[0].ahead, first.ahead)
        return now + min(one.ahead for one in settings) - CLOSE_MEMORY
