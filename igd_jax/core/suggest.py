"""Suggestions for a name that is not known: what was probably meant."""

from collections.abc import Collection

from rapidfuzz import fuzz, process, utils

from igd_jax.core.shown import shortened

MOST = 3
"""Maximum number of suggestions."""
LONGEST = 80
"""Maximum number of characters of a suggestion."""
SHORTEST = 4
"""Letters with which the beginning of a name is recognised."""
LEAST_LIKE = 75
"""Least similarity of a suggestion, in percent: twice the letters in common by all letters (the normalised Indel)."""


def did_you_mean(given: str, known: Collection[str]) -> str:
    """A question to append to a message about an unknown name: ``; did you mean 'A' or 'B'?``; empty if nothing fits.

    What begins with the given text comes first, then what is spelt like it, the most similar first. Case and signs do
    not matter. A million names take about half a second.

    Args:
      given: the unknown name.
      known: the known ones.
    """
    beginning = utils.default_process(given)
    is_long = len(beginning) >= SHORTEST
    begin = [name for name in known if is_long and utils.default_process(name).startswith(beginning)]
    like = process.extract(
        given, list(known), scorer=fuzz.ratio, processor=utils.default_process, limit=MOST, score_cutoff=LEAST_LIKE
    )
    found = list(dict.fromkeys([*begin, *(name for name, *_ in like)]))[:MOST]
    if not found:
        return ""
    *others, last = (repr(shortened(name, LONGEST)) for name in found)
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
