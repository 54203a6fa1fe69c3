"""
The conformance kit: what MC-BUP and txbits promise of a server, tried out on one.

:data:`CHECKS` is all that is tried, and :func:`check` tries it; ``txbits check`` is a
command line for that. The kit shares the reading of header values with the rest, and
nothing with the server: it speaks raw bytes, and believes no one.

Whatever it creates it cancels. Only checks that publish a file leave something
behind, since BITS has no way to remove one, and they run only where that is permitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail

from txbits.check import (
    acks,
    creation,
    endings,
    forms,
    fragments,
    publishing,
    ranges,
)
from txbits.check._model import Check, Group, Level, Outcome, Report, Result
from txbits.check._run import DEFAULT_PATIENCE, Run, Unreachable, select
from txbits.check._target import Target
from txbits.client.settings import ConnectionSettings

#: All checks, by what they are about.
GROUPS: tuple[Group, ...] = (
    acks.GROUP,
    creation.GROUP,
    forms.GROUP,
    ranges.GROUP,
    fragments.GROUP,
    endings.GROUP,
    publishing.GROUP,
)

#: All checks, in the order in which they run.
CHECKS: tuple[Check, ...] = tuple(check for group in GROUPS for check in group)


def _ignore(result: Result) -> None:
    """Do nothing."""


def check(
    url: str,
    *,
    reactor: Any,
    checks: Sequence[Check] = CHECKS,
    patience: float = DEFAULT_PATIENCE,
    may_publish: bool = False,
    settings: ConnectionSettings | None = None,
    on_result: Callable[[Result], None] = _ignore,
) -> Deferred[Report]:
    """
    Try a server out.

    :param url: A folder on it that may be written to.
    :param reactor: Makes the connections, and tells the time.
    :param checks: What to try.
    :param patience: For how many seconds an answer is waited for.
    :param may_publish: Whether files may be left in the folder.
    :param settings: How the server is reached: headers, certificates, credentials,
        which are sent with each request, as Basic.
    :param on_result: Called with each result.
    :returns: A Deferred that fires with a :class:`Report`. It fails with
        :class:`Unreachable` if there is no connection, and with
        :class:`~txbits.client.InvalidURL` or :class:`~txbits.client.InvalidSettings` if
        there can be none. When it is cancelled, the check under way is tidied up after
        before it fails.
    """
    try:
        target = Target.of(url, settings)
        endpoint = target.endpoint(reactor, patience)
    except ValueError:
        return fail()
    return Run(target, endpoint, reactor, patience, may_publish, on_result).start(
        checks
    )


__all__ = [
    "CHECKS",
    "GROUPS",
    "Check",
    "Level",
    "Outcome",
    "Report",
    "Result",
    "Run",
    "Target",
    "Unreachable",
    "check",
    "select",
]
