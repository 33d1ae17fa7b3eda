"""Suggestions for a name that is not known: what was probably meant."""

from collections.abc import Collection

from rapidfuzz import distance, fuzz, process, utils

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shortened

MOST = 3
"""Maximum number of suggestions."""
LEAST_LIKE = 80
"""Least similarity of a suggestion, in percent: the letters in common, in order, of all letters of both."""
LONGEST = 80
"""Maximum number of characters of a suggestion."""
SHORTEST = 4
"""Letters with which the beginning of a name is recognised."""
FEWEST = 3
"""Letters with which a name is recognised that has one letter changed, or two in each other's place."""


def did_you_mean(given: str, known: Collection[str]) -> str:
    """A question to append to a message about an unknown name: ``; did you mean 'A' or 'B'?``; empty if nothing fits.

    Suggested is what is spelt like the given text, or begins like it, the most similar first; if nothing is, what is
    one slip away. Case and signs do not matter. A million names take about a second.

    Args:
      given: the unknown name.
      known: the known ones.
    """
    asked, names = utils.default_process(given), list(known)
    plain = [utils.default_process(name) for name in names]
    forms = [plain, [name[: len(asked)] for name in plain]] if len(asked) >= SHORTEST else [plain]
    likeness = dict[str, float]()
    for form in forms:
        for _, like, place in process.extract(asked, form, scorer=fuzz.ratio, limit=MOST, score_cutoff=LEAST_LIKE):
            likeness[names[place]] = max(like, likeness.get(names[place], 0.0))
    if not likeness and len(asked) >= FEWEST:
        slips = process.extract(asked, plain, scorer=distance.OSA.distance, limit=MOST, score_cutoff=1)
        likeness = {names[place]: LEAST_LIKE for _, _, place in slips}
    if not asked or not likeness:
        return ""
    best = sorted(likeness, key=lambda name: -likeness[name])[:MOST]
    *others, last = (repr(shortened(name, LONGEST)) for name in best)
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


class UnknownNameError(InputError):
    """A name that is not known. What may be meant is looked for when the message is read, as not every one is."""

    def __init__(self, message: str, given: str, known: Collection[str]):
        super().__init__(message)
        self._given, self._known = given, known

    def __str__(self) -> str:
        return f"{super().__str__()}{did_you_mean(self._given, self._known)}"
