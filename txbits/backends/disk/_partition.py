"""
The slots of a root that one process has, and in which of them a session is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

from attrs import define, field
from twisted.logger import Logger

from txbits._workers import Worker, slot_of
from txbits.backends.disk._files import Removed, translated
from txbits.backends.disk._slots import remove_slot
from txbits.backends.disk._staging import Staging
from txbits.errors import BackendError

_log = Logger()

_OVER = object()


@define(eq=False)
class Partition:
    """
    The slots of one process, opened and locked.

    :param worker: Which of the processes that use the root this is.
    :ivar own: The slot in which it makes its sessions.
    :ivar adopted: The slots that other workers have left, by their numbers. Nothing is
        added to them, and an empty one is removed.
    :ivar removed: How much clean-ups have removed, by kind.
    """

    _worker: Worker
    own: Staging
    adopted: dict[int, Staging]
    removed: Counter[str] = field(factory=Counter, init=False)
    _closing: list[Staging] = field(factory=list, init=False)
    _is_whole: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Without workers, now or before, ids need not tell a slot.
        self._is_whole = self._worker.count == 1 and not self.adopted

    def __iter__(self) -> Iterator[Staging]:
        return iter([self.own, *self.adopted.values()])

    def of(self, session_id: UUID) -> Staging:
        """Where a session is, if it is one of this process."""
        if not self.adopted:
            return self.own
        return self.adopted.get(slot_of(session_id), self.own)

    def slot_for(self, session_id: UUID) -> Staging:
        """
        Where a new session is made.

        :raises BackendError: If it would be looked for in another slot.
        """
        if not self._is_whole and slot_of(session_id) != self.own.slot:
            raise BackendError(
                f"session {session_id} would be looked for in slot "
                f"{slot_of(session_id)}, but is made in slot {self.own.slot}; use the "
                "ids that new_id() makes"
            )
        return self.own

    async def clean_up(self, closed_before: float) -> None:
        """Do it in all slots; see :class:`~txbits.interfaces.IBackend`."""
        for staging in self:
            await staging.close_memory.settle()
            concluded = staging.closes.conclude()
            steps = staging.clean_up(closed_before, concluded)
            while (
                step := await staging.in_thread(translated, next, steps, _OVER)
            ) is not _OVER:
                if isinstance(step, Removed):
                    self.removed[step.kind] += step.count
                elif step is not None:
                    _not_removed(step)
            if staging is not self.own:
                try:
                    await self._remove_if_empty(staging)
                except BackendError as fault:
                    _not_removed(fault)

    async def _remove_if_empty(self, staging: Staging) -> None:
        run = staging.in_thread
        if await run(translated, staging.is_empty):
            # It is closed with the others: something may still look into it.
            self._closing.append(self.adopted.pop(staging.slot))
            await run(
                translated, remove_slot, staging.files, staging.base, staging.slot
            )

    def close(self) -> None:
        """Give the slots back, and the root."""
        for staging in (*self._closing, *self.adopted.values(), self.own):
            staging.close()


def _not_removed(fault: object) -> None:
    _log.error("clean-up could not remove something: {fault}", fault=fault)
