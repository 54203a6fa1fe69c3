"""
What a check is, and what comes out of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from txbits.check._bench import Bench

#: What does the checking: it returns if all is well.
Function = Callable[["Bench"], Awaitable[None]]


class Failed(Exception):
    """The server does it otherwise; the text says what it did."""


class NotApplicable(Exception):
    """It cannot be told whether the server does it; the text says why."""


class Level(Enum):
    """Who demands it."""

    #: MC-BUP, or the HTTP that it builds on, says that a server must.
    MUST = "MUST"
    #: They say that it should, or clients of Windows rely on it.
    SHOULD = "SHOULD"
    #: txbits promises it; another server may do otherwise.
    TXBITS = "txbits"


class Outcome(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@frozen
class Check:
    """
    One thing that is expected of a server.

    :ivar name: What it is called, here and in the documentation.
    :ivar section: The section of MC-BUP that it comes from, or is closest to.
    :ivar level: Who demands it.
    :ivar expectation: What is expected, in one sentence.
    :ivar function: Tries it.
    :ivar publishes: Whether it leaves a file at its destination.
    """

    name: str
    section: str
    level: Level
    expectation: str
    function: Function = field(repr=False)
    publishes: bool = False


@define
class Group:
    """
    Checks that belong together.

    :ivar title: What they are about.
    :ivar publishes: Whether they leave files behind.
    """

    title: str
    publishes: bool = False
    checks: list[Check] = field(init=False, factory=list)

    def check(
        self, name: str, section: str, level: Level, expectation: str
    ) -> Callable[[Function], Function]:
        """Make a coroutine function a check of this group."""

        def add(function: Function) -> Function:
            self.checks.append(
                Check(name, section, level, expectation, function, self.publishes)
            )
            return function

        return add

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)


@frozen
class Result:
    """
    How one check ended.

    :ivar check: Which.
    :ivar outcome: How.
    :ivar detail: Why, in one line; empty if it passed.
    """

    check: Check
    outcome: Outcome
    detail: str = ""


@frozen
class Report:
    """
    How a run ended.

    :ivar url: Where it took place.
    :ivar results: One for each check, in their order.
    :ivar left_behind: What the run could not take away again, one line each.
    """

    url: str
    results: Sequence[Result]
    left_behind: Sequence[str] = ()

    def count(self, outcome: Outcome) -> int:
        """How many checks ended so."""
        return sum(result.outcome is outcome for result in self.results)

    def is_good(self, *, strict: bool = False) -> bool:
        """
        Whether nothing failed that MC-BUP demands.

        :param strict: Whether what txbits promises counts as well.
        """
        return not any(
            result.outcome is Outcome.FAILED
            and (strict or result.check.level is not Level.TXBITS)
            for result in self.results
        )

    def to_json(self) -> dict[str, Any]:
        """Write it as what the module json takes."""
        return {
            "url": self.url,
            "checks": [
                {
                    "name": result.check.name,
                    "section": result.check.section,
                    "level": result.check.level.value,
                    "expectation": result.check.expectation,
                    "outcome": result.outcome.value,
                    "detail": result.detail,
                }
                for result in self.results
            ],
            "passed": self.count(Outcome.PASSED),
            "failed": self.count(Outcome.FAILED),
            "not_applicable": self.count(Outcome.NOT_APPLICABLE),
            "left_behind": list(self.left_behind),
        }
