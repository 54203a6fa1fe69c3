"""
The HTML of what the server does: its health, the last hour, refusals and directories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import frozen
from twisted.web.template import Element, Tag, renderer, tags

from txbits._counts import Refused
from txbits.admin.page.glance import DirectoryState, Glance, ProcessState
from txbits.admin.page.rendering import (
    Ready,
    Row,
    filled,
    query_of,
    template,
    who_of,
)
from txbits.admin.page.samples import INTERVAL, Rates
from txbits.admin.page.words import (
    machine_readable,
    moment,
    number,
    plural,
    rate,
    size,
    size_rate,
)
from txbits.admin.sessions import SessionFilter
from txbits.protocol.refusals import REFUSALS
from txbits.sessions.naming import shown

_CAUSES = {one.name: one for one in REFUSALS}

#: The width and height of a plot, in the units of its SVG. A sample takes one.
_WIDTH, _HEIGHT = 359, 48

#: What is shown before the first sample.
_NOT_YET = f"known after {INTERVAL:.0f} s"

#: Days before the end of a certificate from which it is shown as a problem.
_FEW_DAYS = 14


class Health(Element):
    """Whether the server is ready, and when that was."""

    loader = template("health")

    def __init__(self, glance: Glance) -> None:
        super().__init__()
        self._glance = glance

    @renderer
    def state(self, request: object, tag: Tag) -> Tag:
        is_ready = not self._glance.obstacles
        return tag(class_="state good" if is_ready else "state bad").fillSlots(
            mark="✓" if is_ready else "!",
            word="Ready" if is_ready else "Not ready",
        )

    @renderer
    def reasons(self, request: object, tag: Tag) -> Tag | str:
        return tag if self._glance.obstacles else ""

    @renderer
    def reason(self, request: object, tag: Tag) -> Iterator[Tag]:
        return (filled(tag, line=shown(line)) for line in self._glance.obstacles)

    @renderer
    def at(self, request: object, tag: Tag) -> Tag:
        at = self._glance.at
        return tag.fillSlots(machine=machine_readable(at), words=moment(at))


@frozen
class _Plot:
    name: str
    label: str
    words: Callable[[float], str]


_PLOTS = (
    _Plot("received", "Received", size_rate),
    _Plot("packets", "Packets", rate),
    _Plot("sessions", "Open sessions", number),
    _Plot("refusals", "Refusals", rate),
)


def line_of(values: Sequence[float]) -> str:
    """
    Draw the line of a plot.

    :param values: At most as many as samples are kept; the last is at the right edge.
    :returns: What the attribute ``d`` of an SVG path has; empty without values.
    """
    most = max(values, default=0.0) or 1.0
    left = _WIDTH + 1 - len(values)
    points = [
        f"{left + index} {(_HEIGHT - 1) - (_HEIGHT - 3) * value / most:.1f}"
        for index, value in enumerate(values)
    ]
    return f"M{'L'.join(points)}" if points else ""


class Plots(Element):
    """What happened within the last hour."""

    loader = template("plots")

    def __init__(self, rates: Rates) -> None:
        super().__init__()
        self._rates = rates

    @renderer
    def plot(self, request: object, tag: Tag) -> Iterator[Tag]:
        for one in _PLOTS:
            values: Sequence[float] = getattr(self._rates, one.name)
            now = one.words(values[-1]) if values else "-"
            most = one.words(max(values, default=0.0))
            line = line_of(values)
            # It goes down to the base at both ends.
            left = _WIDTH + 1 - len(values)
            area = line and f"{line}V{_HEIGHT}H{left}Z"
            yield filled(
                tag,
                name=one.name,
                label=one.label,
                now=now,
                most=f"peak {most}" if values else _NOT_YET,
                summary=f"{one.label} in the last hour: now {now}, peak {most}",
                line=line,
                area=area,
            )


_REFUSAL = Row(
    "refusal_row",
    *("cause", "detail", "remedy", "who", "what", "answer", "count", "machine", "at"),
)


def _refusal_row(one: Refused) -> dict[str, str]:
    row = _CAUSES.get(one.refusal)
    return {
        "cause": one.refusal if row is None else row.cause,
        "detail": one.detail,
        "remedy": "" if row is None else row.remedy,
        "who": who_of(one.user, one.client),
        "what": f"{one.packet} {one.directory}/{one.destination}",
        "answer": f"{one.status} 0x{one.hresult:08X}",
        "count": f"{one.count:,}",
        "machine": machine_readable(one.at),
        "at": moment(one.at)[11:19],
    }


class Refusals(Element):
    """The last refusals, with their causes and remedies."""

    loader = template("refusals")

    def __init__(self, glance: Glance) -> None:
        super().__init__()
        self._refusals = glance.refusals

    @renderer
    def table(self, request: object, tag: Tag) -> Tag | str:
        return tag if self._refusals else ""

    @renderer
    def rows(self, request: object, tag: Tag) -> Ready:
        return _REFUSAL.written(map(_refusal_row, self._refusals))

    @renderer
    def empty(self, request: object, tag: Tag) -> Tag | str:
        return "" if self._refusals else tag


class Server(Element):
    """The directories, the processes and the certificates."""

    loader = template("server")

    def __init__(self, glance: Glance) -> None:
        super().__init__()
        self._glance = glance

    @renderer
    def directory(self, request: object, tag: Tag) -> Iterator[Tag]:
        return (self._directory(tag, one) for one in self._glance.directories)

    def _directory(self, tag: Tag, one: DirectoryState) -> Tag:
        if one.troubles:
            state = tags.span(f"! {'; '.join(one.troubles)}", class_="bad")
        elif one.enabled:
            state = tags.span("✓ works", class_="good")
        else:
            state = tags.span("disabled")
        return filled(
            tag,
            link=query_of(SessionFilter(directory=one.mount)),
            mount=one.mount,
            backend=one.backend,
            state=state,
            sessions=f"{one.sessions:,}",
            staged=size(one.staged),
            published=size(one.published),
            errors=f"{one.errors:,}",
        )

    @renderer
    def process(self, request: object, tag: Tag) -> Iterator[Tag]:
        return (self._process(tag, one) for one in self._glance.processes)

    def _process(self, tag: Tag, one: ProcessState) -> Tag:
        return filled(
            tag,
            name=one.name,
            pid=str(one.pid),
            started=moment(one.started),
            connections=f"{one.connections:,}",
            turned_away=f"{one.turned_away:,}",
            delay=f"{one.delay * 1000:.0f} ms",
        )

    @renderer
    def certificates(self, request: object, tag: Tag) -> Tag | str:
        return tag if self._glance.certificates else ""

    @renderer
    def certificate(self, request: object, tag: Tag) -> Iterator[Tag]:
        for address, expires in self._glance.certificates:
            days = int((expires - self._glance.at) // 86400)
            until = f" (until {moment(expires)[:10]})"
            if days < 0:
                left = tags.span("! expired", until, class_="bad")
            elif days < _FEW_DAYS:
                left = tags.span(f"! {plural(days, 'day')} left", until, class_="bad")
            else:
                left = tags.span(f"✓ {plural(days, 'day')} left", until, class_="good")
            yield filled(tag, address=address, left=left)

    @renderer
    def no_certificates(self, request: object, tag: Tag) -> Tag | str:
        return "" if self._glance.certificates else tag
