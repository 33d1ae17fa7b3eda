"""How a message repeats what it was given: short enough for one line."""

from collections.abc import Iterable
from typing import Any

LONGEST_SHOWN = 160
"""Characters of a value that a message repeats."""
LONGEST_LINE = 480
"""Characters of a whole message, which is printed after "error: "."""
MOST_NAMES = 12
"""Names that a message lists."""


def shown(value: Any) -> str:
    """A value as a message repeats it, shortened in the middle."""
    try:
        return shortened(repr(value), LONGEST_SHOWN)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """A text of at most `longest` characters: of a longer one, its two ends."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def listed(names: Iterable[str]) -> str:
    """Names separated by commas: of many, the first ones and how many more there are."""
    names = list(names)
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(shortened(name, 40) for name in names[:MOST_NAMES]) + more
