"""Borders that no token crosses, so that the ids of a joined text are those of its parts, end to end.

A tokenizer first splits a text by a pattern and then merges within each part. The patterns known here split, whatever
else stands around, at two kinds of borders, and look no further than one character ahead to do so:

    SPACE   a character that is not white space | a space
    LINE    a character that is not white space, and one newline | a character that is not white space

White space of two characters or more before a border would not do: GPT-2's pattern groups it by what follows.
"""

import json
import re
from typing import Any

import tokenizers

SPACE, LINE = 1, 2
SPACE_BORDER = re.compile(r"(?<=\S)(?= )")
"""What splits a text at its borders of the kind SPACE."""

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN_PATTERNS = (_PATTERN % r"\p{N}", _PATTERN % r"\p{N}{1,3}")
"""Of Qwen 2 to 3, and of Llama 3; that of GPT-2 is built into the pre-tokenizer ``ByteLevel``."""


def splits_at_borders(backend: tokenizers.Tokenizer) -> bool:
    """Whether a tokenizer is known to split at every SPACE and LINE border; False where that is not known."""
    added = [token for token in backend.get_added_tokens_decoder().values() if not token.special]
    crosses = any(t.lstrip or t.rstrip or t.single_word or any(map(str.isspace, t.content)) for t in added)
    normalizer, splitter = _described(backend.normalizer), _described(backend.pre_tokenizer)
    return not crosses and (normalizer is None or normalizer["type"] == "NFC") and _splits(splitter)


def _described(part: Any) -> dict[str, Any] | None:
    """A component of a tokenizer as it stands in ``tokenizer.json``."""
    return None if part is None else json.loads(part.__getstate__())


def _splits(part: dict[str, Any] | None) -> bool:
    """Whether a pre-tokenizer splits at the borders; one that splits only further may stand beside it in a sequence."""
    steps = part["pretokenizers"] if part and part["type"] == "Sequence" else [part] if part else []
    known = all(_is_pattern(step) or _only_splits_further(step) for step in steps)
    return known and any(map(_is_pattern, steps))


def _is_pattern(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return step["use_regex"] and not step["add_prefix_space"]
    is_split = step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]
    return is_split and step["pattern"].get("Regex") in KNOWN_PATTERNS


def _only_splits_further(step: dict[str, Any]) -> bool:
    return step["type"] == "Digits" or (step["type"] == "ByteLevel" and not step["add_prefix_space"])


def left_of(text: str) -> int:
    """The kinds of borders that may follow a text: SPACE, LINE or 0."""
    if not text or not text[-1].isspace():
        return SPACE if text else 0
    return LINE if text[-1] == "\n" and len(text) > 1 and not text[-2].isspace() else 0


def right_of(text: str) -> int:
    """The kinds of borders that may precede a text: SPACE, LINE or 0."""
    if not text or text[0].isspace():
        return SPACE if text[:1] == " " else 0
    return LINE
