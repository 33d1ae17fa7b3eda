"""Given values in messages, short enough for one line."""

from collections.abc import Iterable
from typing import Any

LONGEST_SHOWN = 160
"""Maximum number of characters of a value in a message."""
LONGEST_LINE = 480
"""Maximum number of characters of a message, which is printed after "error: "."""
MOST_NAMES = 12
"""Maximum number of names in a message."""
NEWLINE = "⏎"
"""Sign for a line end."""
_INK = str.maketrans({" ": "␣", "\n": NEWLINE, "\t": "⇥"})


def shown(value: Any) -> str:
    """Representation of a value for a message, shortened in the middle."""
    try:
        return shortened(repr(value), LONGEST_SHOWN)
    except ValueError:  # Python does not convert integers of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"


def shortened(text: str, longest: int = LONGEST_SHOWN) -> str:
    """The text if it has at most `longest` characters, else its two ends."""
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def with_ink(text: str) -> str:
    """The text with signs for spaces, line ends and tabs."""
    return text.translate(_INK)


def listed(names: Iterable[str]) -> str:
    """Names separated by commas; of many, the first ones and the number of the others."""
    names = list(names)
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(shortened(name, 40) for name in names[:MOST_NAMES]) + more
