"""Titles between other texts, as ids, without tokenising them again: only the words at both ends meet what is new."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from igd_jax.core.log import told
from igd_jax.core.ragged import Ragged, ragged_index
from igd_jax.data.tokenizer import Tokenizer, in_parts


def between(before: str, after: str, texts: Sequence[str], lines: Ragged, tokenizer: Tokenizer) -> Ragged:
    """Ids of ``before + text + after`` for each text.

        lines      |Pacific| Vortex (Dirk| Pitt\\n|           what stands between the first and the last border of a
        wanted    |" Pacific| Vortex (Dirk| Pitt,|           text is taken over, and its ends are tokenised, once each

    Args:
      lines: ids of ``text + newline``.
      tokenizer: one that splits at borders; see `data.borders`.
    """
    n_texts = len(texts)
    first, last = dict[str, int](), dict[str, int]()
    number: Int[np.ndarray, "2 n_texts"] = np.empty((2, n_texts), np.int32)
    for at, text in enumerate(texts):
        begin, end = _borders(text)
        number[0, at] = first.setdefault(text[:begin] if begin else text + after, len(first))
        number[1, at] = last.setdefault(text[end:], len(last)) if begin else -1
    is_alone = number[1] < 0  # no border: tokenised whole
    firsts, lasts = [*first], [*last]
    old_first, new_first = (_encoded(start, firsts, "", tokenizer) for start in ("", before))
    old_last, new_last = (_encoded("", lasts, end, tokenizer) for end in ("\n", after))
    n_first = np.where(is_alone, lines.lengths, old_first.lengths[number[0]])
    n_last = np.where(is_alone, 0, np.append(old_last.lengths, 0)[number[1]])
    kept = lines.lengths - n_first - n_last
    middle = Ragged(lines.ids[ragged_index(lines.start[:-1] + n_first, kept)], np.append(0, np.cumsum(kept)))
    nothing = Ragged(np.zeros(0, np.int32), np.zeros(2, np.int64))
    parts = Ragged.concatenate([new_first, middle, new_last, nothing])
    n_first_rows, n_parts = len(new_first), len(parts)
    groups = np.stack(
        [
            number[0],
            n_first_rows + np.arange(n_texts),
            np.where(is_alone, n_parts - 1, n_first_rows + n_texts + number[1]),
        ],
        axis=1,
    ).astype(np.int32)
    return parts.join(Ragged(groups.ravel(), 3 * np.arange(n_texts + 1)))


def _borders(text: str) -> tuple[int, int]:
    """Places of the first and the last space after a character that is no white space; 0 where there is none."""
    begin = text.find(" ", 1)
    while begin > 0 and text[begin - 1].isspace():
        begin = text.find(" ", begin + 1)
    if begin <= 0:
        return 0, 0
    end = text.rfind(" ")
    while text[end - 1].isspace():
        end = text.rfind(" ", 0, end)
    return begin, end


def _encoded(before: str, texts: Sequence[str], after: str, tokenizer: Tokenizer) -> Ragged:
    parts = told(in_parts(texts), "tokenised", len(texts), "words")
    return Ragged.concatenate(
        [Ragged.from_lists(tokenizer.encode([before + text + after for text in some])) for some in parts]
    )
