"""
The conformance kit: whether a server does what MC-BUP requires and txbits promises.

:data:`CHECKS` lists the checks, and :func:`check` performs them, as ``txbits check``
does. The kit parses header values with :mod:`txbits.protocol`, and shares nothing else
with the server: it sends raw bytes.

It cancels all sessions that it creates. Only checks that publish a file leave one,
since BITS cannot remove files, and they run only with permission.
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
from txbits.check._login import NotLetIn
from txbits.check._model import Check, Group, Level, Outcome, Report, Result
from txbits.check._run import DEFAULT_PATIENCE, Run, Unreachable, ignore, select
from txbits.check._target import Target
from txbits.client.settings import ConnectionSettings

#: All checks, by subject.
GROUPS: tuple[Group, ...] = (
    acks.GROUP,
    creation.GROUP,
    forms.GROUP,
    ranges.GROUP,
    fragments.GROUP,
    endings.GROUP,
    publishing.GROUP,
)

#: All checks, in the order of a run.
CHECKS: tuple[Check, ...] = tuple(check for group in GROUPS for check in group)


def check(
    url: str,
    *,
    reactor: Any,
    checks: Sequence[Check] = CHECKS,
    patience: float = DEFAULT_PATIENCE,
    may_publish: bool = False,
    settings: ConnectionSettings | None = None,
    on_result: Callable[[Result], None] = ignore,
) -> Deferred[Report]:
    """
    Check a server.

    :param url: A folder on the server that accepts uploads.
    :param reactor: Makes the connections, and tells the time.
    :param checks: The checks to perform.
    :param patience: How many seconds to wait for an answer.
    :param may_publish: Whether the checks may leave files in the folder.
    :param settings: How to connect to the server: headers, certificates, and
        credentials. Each request has the token, or the password, as Basic; with
        Negotiate each connection is logged in.
    :param on_result: Called with each result.
    :returns: A Deferred that fires with a :class:`Report`. It fails with
        :class:`Unreachable` if the server cannot be reached, with :class:`NotLetIn` if
        it does not accept the credentials, and with :class:`~txbits.client.InvalidURL`
        or :class:`~txbits.client.InvalidSettings` if an argument is invalid. When it is
        cancelled, it cleans up after the current check before it fails.
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
    "NotLetIn",
    "Outcome",
    "Report",
    "Result",
    "Run",
    "Target",
    "Unreachable",
    "check",
    "select",
]
