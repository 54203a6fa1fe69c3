"""
What the garbage collector does while a process loads, and later.
"""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txbits._loading import Loading


class Loaded:
    """Something that is loaded."""


def circle() -> weakref.ref[Loaded]:
    """Leave something that only the collector can remove."""
    one: dict[str, object] = {}
    one["self"], one["loaded"] = one, Loaded()
    loaded = one["loaded"]
    assert isinstance(loaded, Loaded)
    return weakref.ref(loaded)


class LoadingTests(SynchronousTestCase):
    """The collector, off and on."""

    def setUp(self) -> None:
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)

    def test_it_does_not_run_while_the_process_loads(self) -> None:
        with Loading():
            self.assertFalse(gc.isenabled())
        self.assertTrue(gc.isenabled())

    def test_it_is_not_enabled_if_it_was_not_before(self) -> None:
        gc.disable()
        with Loading():
            self.assertFalse(gc.isenabled())
        self.assertFalse(gc.isenabled())

    def test_it_runs_again_after_an_import_that_fails(self) -> None:
        with self.assertRaises(ImportError), Loading():
            raise ImportError
        self.assertTrue(gc.isenabled())

    def test_it_leaves_alone_what_is_loaded_but_not_what_comes_later(self) -> None:
        with Loading():
            loaded = circle()
        later = circle()
        gc.collect()
        self.assertIsNotNone(loaded())
        self.assertIsNone(later())
