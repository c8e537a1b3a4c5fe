"""Solutions: the chains of thought along which a story's answer is found, one step a line."""

from collections.abc import Callable

from aft.tasks.pocket.stories import Event, listed

PATHS = ("in_order", "gains_first", "losses_first", "neighbours")

Sum = Callable[[int, int], int]  # how a step adds two numbers: exactly, or with slips
Part = tuple[str, int]  # what a path takes together: "finds 7, sells 5" and its signed amount


def solution(start: int, events: tuple[Event, ...], path: str, add: Sum = lambda a, b: a + b) -> str:
    """The COT along `path`, one step a line, with the final answer as its last line.

    Events count in the direction that they carry, which need not be the true one; `add` makes every sum.
    """
    lines: list[str] = []
    if path == "in_order":
        parts = [(listed([event]), event.signed) for event in events]
    elif path == "neighbours":
        parts = [_together(events[i : i + 2], add, lines) for i in range(0, len(events), 2)]
    else:
        wanted = (True, False) if path == "gains_first" else (False, True)
        parts = [_kind(events, gain, add, lines) for gain in wanted if any(e.gain == gain for e in events)]
    total = start
    for words, amount in parts:
        result = add(total, amount)
        lines.append(f"{words}: {total} {'-' if amount < 0 else '+'} {abs(amount)} = {result}.")
        total = result
    return "\n".join([*lines, f"#### {total}"])


def _together(pair: tuple[Event, ...], add: Sum, lines: list[str]) -> Part:
    """Two neighbouring events become one amount, in a line of its own; an odd last event stays as it is."""
    if len(pair) == 1:
        return listed(pair), pair[0].signed
    large, small = sorted(pair, key=lambda event: event.amount, reverse=True)
    sign = "+" if large.gain == small.gain else "-"
    result = abs(add(large.amount, small.amount if sign == "+" else -small.amount))
    direction = "more" if large.gain else "fewer"
    lines.append(f"{listed(pair)}: {large.amount} {sign} {small.amount} = {result} {direction}.")
    return direction, result if large.gain else -result


def _kind(events: tuple[Event, ...], gain: bool, add: Sum, lines: list[str]) -> Part:
    """All gains, or all losses, become one amount."""
    chosen = [event for event in events if event.gain == gain]
    name = "gains" if gain else "losses"
    total = chosen[0].amount
    terms = " + ".join(str(event.amount) for event in chosen)
    for event in chosen[1:]:
        total = add(total, event.amount)
    lines.append(f"{name} {listed(chosen)}: {terms}{f' = {total}' if len(chosen) > 1 else ''}.")
    return name, total if gain else -total
