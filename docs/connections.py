"""
Draws the states of a connection: ``python docs/connections.py``.

The program draws them from the table in ``txbits/web/_streaming/states.py``, and prints
the diagram and the two tables of ``docs/explanation/connections.md``. A test compares.
"""

from __future__ import annotations

from txbits.web._streaming.states import EVENTS, LOST, NEW, TRANSITIONS, State


def diagram() -> str:
    """All transitions, without those that change nothing and those to *lost*."""
    lines = ["stateDiagram-v2", f"    [*] --> {NEW.name}"]
    for state, row in TRANSITIONS.items():
        labels: dict[State, list[str]] = {}
        for event, following in row.items():
            if following not in (state, LOST):
                labels.setdefault(following, []).append(event)
        if labels:
            lines.append("")
        for following, events in labels.items():
            label = ", ".join(events)
            lines.append(f"    {state.name} --> {following.name}: {label}")
    return "\n".join(lines)


def events() -> str:
    """What each event is."""
    lines = ["| event | what has happened |", "| --- | --- |"]
    lines += [f"| {event} | {text} |" for event, text in EVENTS.items()]
    return "\n".join(lines)


def deadlines() -> str:
    """What each state waits for, and for how long."""
    lines = [
        "| state | waits for | time | earned again by | otherwise |",
        "| --- | --- | --- | --- | --- |",
    ]
    for state in TRANSITIONS:
        if state is LOST:
            continue
        time = "no limit" if state.limit is None else f"`{state.limit}`"
        again = f"1 KiB {state.progress}" if state.progress else "nothing"
        end = "closed" if state.closes else "dropped"
        if state.limit is None:
            again = end = ""
        lines.append(f"| {state.name} | {state.awaits} | {time} | {again} | {end} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join([f"```mermaid\n{diagram()}\n```", events(), deadlines()]))
