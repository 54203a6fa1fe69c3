"""
Which tests of the contract a backend gets: those of the abilities that it declares.
"""

from __future__ import annotations

import time
from typing import Any
from unittest import TestResult

from twisted.internet.task import Clock
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.memory import MemoryBackend
from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IClaimable,
    IDownloadable,
    IPaged,
    IReadable,
    ISorted,
)
from txbits.testing import BackendContract


class _OnMemory(BackendContract):
    has_directories = False

    def make_backend(self) -> Any:
        clock = Clock()
        clock.advance(time.time())
        return MemoryBackend(clock)


class CollectionTests(SynchronousTestCase):
    """What trial finds in a class, and what it says."""

    def collected(self, case: type[Any]) -> set[str]:
        return {one.id().rpartition(".")[2] for one in TestLoader().loadClass(case)}

    def result_of(self, case: type[Any], name: str) -> TestResult:
        result = TestResult()
        case(name).run(result)
        return result

    def test_tests_of_abilities_that_are_lacking_are_not_there(self) -> None:
        class Some(_OnMemory, SynchronousTestCase):
            abilities = frozenset({IReadable, IPaged})

        names = self.collected(Some)
        self.assertIn("test_readable_sessions_are_read_in_part_and_whole", names)
        self.assertIn("test_sessions_are_listed_in_pages", names)
        self.assertIn("test_release_may_be_called_again", names)
        for missing in (
            "test_a_reply_is_a_stored_file",
            "test_addressable_sessions_have_a_path_or_url",
            "test_a_published_file_can_be_read",
            "test_what_was_given_up_is_released_as_ever",
        ):
            self.assertNotIn(missing, names)

    def test_those_that_are_lacking_are_named_in_one_line(self) -> None:
        class Memory(_OnMemory, SynchronousTestCase):
            abilities = frozenset(
                {
                    *(IAbilities, IAnswerable, IClaimable, IDownloadable, IPaged),
                    *(IReadable, ISorted),
                }
            )

        (name,) = [one for one in self.collected(Memory) if "_lacks_" in one]
        self.assertEqual(
            name,
            "test_lacks_IAddressable_IEagerWriter_IPartitioned_IRefreshable_"
            "IReplyAddressable",
        )
        self.assertTrue(self.result_of(Memory, name).wasSuccessful())

    def test_an_ability_that_is_not_declared_is_told(self) -> None:
        class Undeclared(_OnMemory, SynchronousTestCase):
            pass

        (name,) = [one for one in self.collected(Undeclared) if "_lacks_" in one]
        ((_, failure),) = self.result_of(Undeclared, name).failures
        self.assertIn(
            "abilities is to be "
            "{IAbilities, IAnswerable, IClaimable, IDownloadable, IPaged, IReadable, "
            "ISorted}",
            str(failure),
        )

    def test_an_ability_that_is_declared_and_lacking_is_told(self) -> None:
        class Boasting(_OnMemory, SynchronousTestCase):
            abilities = frozenset({IAddressable})

        (name,) = [one for one in self.collected(Boasting) if "_lacks_" in one]
        self.assertEqual(len(self.result_of(Boasting, name).failures), 1)
