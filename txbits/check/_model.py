"""
Checks, and their results.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from enum import Enum
from typing import Any

from attrs import define, field, frozen

from txbits.check._bench import Bench

#: Performs a check; returns if the server passes it.
Function = Callable[[Bench], Coroutine[Any, Any, None]]


class Level(Enum):
    """Who requires it."""

    #: MC-BUP, or the HTTP that it builds on, says that a server must.
    MUST = "MUST"
    #: They say that it should, or clients of Windows rely on it.
    SHOULD = "SHOULD"
    #: txbits promises it; other servers may differ.
    TXBITS = "txbits"


MUST, SHOULD, TXBITS = Level


class Outcome(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@frozen
class Check:
    """
    One expectation of a server.

    :ivar name: Its name, here and in the documentation.
    :ivar section: The section of MC-BUP that it comes from, or is closest to.
    :ivar level: Who requires it.
    :ivar expectation: The expectation, in one sentence.
    :ivar function: Performs it.
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

    :ivar title: Their subject.
    :ivar publishes: Whether they leave files behind.
    """

    title: str
    publishes: bool = False
    checks: list[Check] = field(init=False, factory=list)

    def add(
        self, name: str, section: str, level: Level, expectation: str, do: Function
    ) -> None:
        """Add a check."""
        self.checks.append(Check(name, section, level, expectation, do, self.publishes))

    def check(self, section: str, level: Level) -> Callable[[Function], Function]:
        """
        Make a coroutine function a check of this group.

        Its name is that of the check; its docstring is the expectation.
        """

        def add(function: Function) -> Function:
            name = function.__name__.replace("_", "-")
            expectation = " ".join((function.__doc__ or "").split())
            self.add(name, section, level, expectation, function)
            return function

        return add

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)


@frozen
class Result:
    """
    The result of a check.

    :ivar check: The check.
    :ivar outcome: How it ended.
    :ivar detail: Why, in one line; empty if it passed.
    """

    check: Check
    outcome: Outcome
    detail: str = ""


@frozen
class Report:
    """
    The results of a run.

    :ivar url: The folder that it used.
    :ivar results: One for each check, in the order of the checks.
    :ivar left_behind: What the run could not remove, one line each.
    """

    url: str
    results: Sequence[Result]
    left_behind: Sequence[str] = ()

    def count(self, outcome: Outcome) -> int:
        """How many checks ended this way."""
        return sum(result.outcome is outcome for result in self.results)

    def is_good(self, *, strict: bool = False) -> bool:
        """
        Whether no check failed that MC-BUP requires.

        :param strict: Whether the promises of txbits count as well.
        """
        return not any(
            result.outcome is Outcome.FAILED
            and (strict or result.check.level is not Level.TXBITS)
            for result in self.results
        )

    def to_json(self) -> dict[str, Any]:
        """Convert it for the module json."""
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
