"""Of tokenizers that are known, no token crosses a border of the two kinds; of others nothing is claimed."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from igd_jax.data.borders import KNOWN_PATTERNS, LINE, SPACE, left_of, right_of, splits_at_borders
from igd_jax.data.tokenizer import load_tokenizer

SIGNS = [
    *"  \n\n\r\t,.!'()&-sStTlLreé١2345日本한\u0301\u0308\u200b\u00a0\u2028\u3000\x1c\x85",
    "don't",
    "ing",
    "\u1100\u1161",
    "🦊",
]


def byte_level(pattern: str | None = None, *, digits: bool = False, normalizer=None) -> tokenizers.Tokenizer:
    """A tokenizer of as many ids as there are bytes and a few merges, which split as a well-known one does."""
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    steps += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        backend.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rng = np.random.default_rng(0)
    backend.train_from_iterator(["".join(rng.choice(SIGNS, 30)) for _ in range(300)], trainer)
    return backend


KNOWN = {
    "gpt2": lambda: byte_level(),
    "qwen": lambda: byte_level(KNOWN_PATTERNS[0], normalizer=normalizers.NFC()),
    "llama 3": lambda: byte_level(KNOWN_PATTERNS[1]),
    "digits apart": lambda: byte_level(digits=True),
}


def _ids(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "qwen")) for name in KNOWN])
def test_no_token_crosses_a_border_of_a_known_tokenizer_whatever_stands_around(name):
    backend, rng = KNOWN[name](), np.random.default_rng(7)
    assert splits_at_borders(backend)
    texts = ["".join(rng.choice(SIGNS, rng.integers(0, 7))) for _ in range(12_000)]
    pairs = [(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    pairs += [(a + "\n", b) for a, b in pairs] + [(a + ",", " " + b) for a, b in pairs]
    kinds = [left_of(a) & right_of(b) for a, b in pairs]
    apart, joined = _ids(backend, [text for pair in pairs for text in pair]), _ids(backend, [a + b for a, b in pairs])
    same = [apart[2 * n] + apart[2 * n + 1] == joined[n] for n in range(len(pairs))]
    assert all(is_same for is_same, kind in zip(same, kinds, strict=True) if kind)
    assert min(kinds.count(SPACE), kinds.count(LINE)) > 1500
    assert not all(same)


@pytest.mark.parametrize(
    ("text", "left", "right"),
    [
        ("", 0, 0),
        (" ", 0, SPACE),
        ("\n", 0, 0),
        ("a", SPACE, LINE),
        (" a,", SPACE, SPACE),
        ("a\n", LINE, LINE),
        ("a \n", 0, LINE),
        ("a\n\n", 0, LINE),
        ("\u00a0a\t", 0, 0),
        ("\u0301", SPACE, LINE),
    ],
)
def test_kinds_of_borders_beside_a_text(text, left, right):
    assert (left_of(text), right_of(text)) == (left, right)


def _with(backend: tokenizers.Tokenizer, **parts) -> tokenizers.Tokenizer:
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def _added(token: AddedToken) -> tokenizers.Tokenizer:
    backend = byte_level()
    backend.add_tokens([token])
    return backend


UNKNOWN = {
    "a token that takes the space after it": lambda: _added(AddedToken("<end>", rstrip=True)),
    "sentencepiece": lambda: _with(
        byte_level(), pre_tokenizer=None, normalizer=normalizers.Sequence([normalizers.Prepend("▁")])
    ),
    "metaspace": lambda: _with(byte_level(), pre_tokenizer=pre_tokenizers.Metaspace()),
    "nothing": lambda: tokenizers.Tokenizer(models.BPE()),
    "a space first": lambda: _with(byte_level(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no pattern": lambda: _with(
        byte_level(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ),
    "another pattern": lambda: byte_level(r"\S+\s*|\s+"),
    "the gaps of a pattern": lambda: _with(
        byte_level(), pre_tokenizer=pre_tokenizers.Split(Regex(KNOWN_PATTERNS[0]), "removed")
    ),
    "lower case": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "a token of two words": lambda: _added(AddedToken("the end")),
    "a token that takes the space before it": lambda: _added(AddedToken("<end>", lstrip=True)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_nothing_is_claimed_of_other_tokenizers(name):
    assert not splits_at_borders(UNKNOWN[name]())


def test_further_tokens_without_white_space_do_no_harm():
    backend = _added(AddedToken("<tool>"))
    assert splits_at_borders(backend)
    texts = ["a<tool>", " b<to", "ol>", "<tool>\n", "<tool>"]
    one, two, three, four, five = _ids(backend, texts)
    assert _ids(backend, [texts[0] + texts[1], texts[3] + texts[4]]) == [one + two, four + five]
    assert _ids(backend, ["x <to" + "ol>"])[0] != _ids(backend, ["x <to"])[0] + three


def test_the_tokenizers_of_qwen_and_of_the_published_model_are_known(shared: Path):
    for folder in (shared / "data" / "qwen2.5-tokenizer", shared / "models" / "tiny-qwen2-books"):
        assert splits_at_borders(load_tokenizer(folder).backend)
