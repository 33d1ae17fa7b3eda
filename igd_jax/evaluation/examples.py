"""One query with its list in a line, for people."""

from collections.abc import Sequence

from igd_jax.core.shown import shortened

SHOWN = 3
"""Number of latest items of a history, and of first results, that a line holds."""
LONGEST = 40
"""Maximum number of characters of a title."""


def example_line(history: Sequence[str], targets: Sequence[str], rank: int, ranked: Sequence[str]) -> str:
    """What came after a history, and what was recommended.

    Args:
      history: titles, oldest first.
      targets: titles that were taken after it, at least one.
      rank: place of the first of them that is in the list, from 0; -1 = none is.
      ranked: titles of the list, best first.
    """
    before = "... + " if len(history) > SHOWN else ""
    more = f" and {len(targets) - 1} more" if len(targets) > 1 else ""
    place = f"number {rank + 1}" if rank >= 0 else "none"
    best = ", ".join(f"{number}. {_quoted(title)}" for number, title in enumerate(ranked[:SHOWN], start=1))
    return (
        f"after {before}{' + '.join(map(_quoted, history[-SHOWN:]))} came {_quoted(targets[0])}{more}, {place} of the "
        f"{len(ranked)} recommended: {best}"
    )


def _quoted(title: str) -> str:
    return repr(shortened(title, LONGEST))
