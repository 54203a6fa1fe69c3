"""
What settings and notifiers require of a backend.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txbits.errors import InvalidSetting
from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IOverwriting,
    IReadable,
)
from txbits.sessions import Settings
from txbits.sessions._abilities import require_abilities
from txbits.testing import HoldableNotifier


@implementer(IAbilities)
@define(eq=False)
class Able:
    """A backend, as far as it tells what its sessions can do."""

    session_abilities: Set[Any]


@implementer(IOverwriting)
class Overwriting:
    """A backend that cannot keep existing files."""

    def why_only_overwriting(self) -> str:
        return "it replaces files"


class AbilityTests(SynchronousTestCase):
    """A setting whose backend lacks something is refused, and named."""

    def complaint(self, backend: Any, settings: Settings, notifier: Any = None) -> str:
        error = self.assertRaises(
            InvalidSetting, require_abilities, backend, settings, notifier, "x:"
        )
        self.assertEqual(str(error).splitlines(), [str(error)])
        return str(error)

    def test_notification_requires_all_that_it_uses(self) -> None:
        notifier = HoldableNotifier(needs=frozenset({IAddressable}))
        names = {IAddressable, IAnswerable, IReadable}
        for lacking in names - {IAddressable}, {IAnswerable}, {IReadable}:
            missing = ", ".join(sorted(one.__name__ for one in lacking))
            self.assertEqual(
                self.complaint(Able(names - lacking), Settings(), notifier),
                "notify-url: requires a backend that keeps uploads until an "
                f"application has answered ({missing}); x: does not support this",
            )
        self.assertEqual(
            self.complaint(Able(names - {IAddressable}), Settings(), notifier),
            "notify-by: 'reference' requires a backend whose uploads other programs "
            "can open (IAddressable); x: does not support this",
        )
        require_abilities(Able(names), Settings(), notifier)

    def test_downloads_require_readable_files(self) -> None:
        self.assertEqual(
            self.complaint(Able(frozenset()), Settings(allow_downloads=True)),
            "allow-downloads: requires a backend whose files can be read "
            "(IDownloadable); x: does not support this",
        )

    def test_keeping_files_requires_a_backend_that_can(self) -> None:
        self.assertEqual(
            self.complaint(Overwriting(), Settings()),
            "allow-overwrites: it replaces files",
        )
        require_abilities(Overwriting(), Settings(allow_overwrites=True), None)

    def test_without_a_notifier_sessions_may_be_plain(self) -> None:
        require_abilities(Able(frozenset()), Settings(), None)
