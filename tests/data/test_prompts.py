"""Every id of a prompt is fixed, however the prompt is put together."""

import csv
import json
from ast import literal_eval
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from plain_trie import lists_of
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged, TokenRows
from igd_jax.data.borders import KNOWN_PATTERNS, SPACE_BORDER, splits_at_borders
from igd_jax.data.joined import JoinedRows
from igd_jax.data.prompts import Prompts, render
from igd_jax.data.templates import TEMPLATES, filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles

CLEAN = [
    "Sahara",
    "Pacific Vortex (Dirk Pitt)",
    "1984",
    "12345678",
    "Ann's 'Book'",
    "Why?!",
    "日本語の本",
    "한국",
    "a",
    "!",
]
CLEAN += [
    "e\u0301tude\u0301",
    "\u0301 starts with a mark",
    "line\nbreak",
    "tab\there",
    "x, y, z",
    "don't",
    "'s",
    "3.14,",
    "🦊\u200d",
]
UNCLEAN = [
    "",
    " ",
    " leads",
    "trails ",
    "\n",
    "\nnew",
    "old\n",
    "  two",
    "two  ",
    "\u00a0nb",
    "nb\u00a0",
    "\r\n",
    "a \n",
    "\u3000",
]
WORDS = [*CLEAN, "books", "Past", "oldest first", "Next:", "unknown"]


def _split_by(pattern: str) -> Tokenizer:
    """Byte-level BPE that splits by a pattern, as Qwen's and Llama 3's."""
    backend = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.normalizer = normalizers.NFC()
    return _trained(backend, trainers.BpeTrainer)


def _trained(backend: tokenizers.Tokenizer, trainer: type, **options) -> Tokenizer:
    options |= {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} if trainer is trainers.BpeTrainer else {}
    corpus = [f"{a}\n\n{b}, {a}:\n{b}" for a in WORDS for b in WORDS]
    backend.train_from_iterator(corpus, trainer(vocab_size=700, show_progress=False, special_tokens=["<e>"], **options))
    return Tokenizer(backend, eos=0, bos=None)


def _sentencepiece() -> Tokenizer:
    """Llama 2's way: one long word, in which merges run across spaces."""
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(steps)
    return _trained(backend, trainers.BpeTrainer)


def _unigram() -> Tokenizer:
    """T5's way."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return _trained(backend, trainers.UnigramTrainer, unk_token="<unk>")


def _space_first() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return _trained(backend, trainers.BpeTrainer)


def _with_bos() -> Tokenizer:
    return Tokenizer(train_tokenizer(WORDS, vocab_size=600).backend, eos=0, bos=5)


OF_WORDS = [name for name, words in TEMPLATES.items() if not words.has_eos]
JOINED = [name for name in OF_WORDS if name != "bigrec"]
"""Templates in which no token crosses from one title to the next: in bigrec, a colon meets the first quote."""
KNOWN = {
    "gpt2": lambda: train_tokenizer([f"{a}\n\n{b}, {a}" for a in WORDS for b in WORDS], vocab_size=700),
    "qwen": lambda: _split_by(KNOWN_PATTERNS[0]),
    "llama 3": lambda: _split_by(KNOWN_PATTERNS[1]),
    "with a bos": _with_bos,
}
OTHERS = {"sentencepiece": _sentencepiece, "unigram": _unigram, "a space first": _space_first}


def _prompts(
    template: str, tokenizer: Tokenizer, titles: Sequence[str], cache: Path = Path("no such") / "cache"
) -> Prompts:
    ids = [str(number) for number in range(len(titles))]
    words = filled(template, category="books")
    identifiers = Titles(Source(ids, titles, {}, tokenizer, cache, words.around))
    return Prompts(words, tokenizer, identifiers, cache)


def _histories(rng: np.random.Generator, n_items: int, n: int = 300) -> Ragged:
    return Ragged.from_lists([rng.integers(0, n_items, rng.integers(0, 6)).tolist() for _ in range(n)])


def _n_whole(rows: TokenRows) -> int:
    """Number of prompts that were tokenised whole, since a token might have crossed a border."""
    return len(rows.which_whole) if isinstance(rows, JoinedRows) else len(rows)


def _check(prompts: Prompts, tokenizer: Tokenizer, template: str, titles: Sequence[str], history: Ragged) -> int:
    """`of_items` and `of_texts` both give the ids of whole prompts; returns how many of the former were made so."""
    texts = [[titles[item] for item in row] for row in lists_of(history)]
    words = filled(template, category="books")
    expected = lists_of(tokenizer.encode_prompts([render(words, row) for row in texts]))
    rows = prompts.of_items(history)
    assert lists_of(rows) == expected
    assert lists_of(prompts.of_texts(texts)) == expected
    return _n_whole(rows)


@pytest.mark.parametrize("template", OF_WORDS)
@pytest.mark.parametrize("name", KNOWN | OTHERS)
def test_joined_prompts_have_the_ids_of_the_whole_whatever_the_titles(name, template):
    tokenizer, rng = (KNOWN | OTHERS)[name](), np.random.default_rng(3)
    titles = [*CLEAN, *UNCLEAN, *("".join(rng.choice([*"ab  \n\n,.'1é\u0301日"], 4)) for _ in range(60))]
    prompts = _prompts(template, tokenizer, titles)
    n_whole = _check(prompts, tokenizer, template, titles, _histories(rng, len(titles)))
    assert splits_at_borders(tokenizer.backend) == (name in KNOWN)
    assert (n_whole == 300) == (name in OTHERS) or template not in JOINED


@pytest.mark.parametrize("template", JOINED)
@pytest.mark.parametrize("name", KNOWN)
def test_no_history_of_clean_titles_is_tokenised_whole(name, template):
    tokenizer = KNOWN[name]()
    prompts = _prompts(template, tokenizer, CLEAN)
    assert _check(prompts, tokenizer, template, CLEAN, _histories(np.random.default_rng(4), len(CLEAN))) == 0


def test_histories_whose_lines_may_merge_are_tokenised_whole_and_only_those():
    tokenizer = KNOWN["qwen"]()
    titles = ["clean", " leads", "trails ", "", "also clean"]
    prompts = _prompts("plain", tokenizer, titles)
    whole = [[1], [0, 1, 4], [2, 0], [3], [0, 3, 4]]
    joined = [[], [0], [0, 4, 0], [0, 2], [4, 4]]  # what stands at the end of the last title is tokenised with it
    history = Ragged.from_lists([row for pair in zip(whole, joined, strict=True) for row in pair])
    assert _check(prompts, tokenizer, "plain", titles, history) == len(whole)
    assert prompts.of_items(history).which_whole.tolist() == [0, 2, 4, 6, 8]
    pieces = tokenizer.encode(["Past books, oldest first:\n", "clean\n", "\n", "also clean\n\nNext:\n"])
    assert prompts.of_items(Ragged.from_lists([[0, 3, 4]]))[0].tolist() != [*chain(*pieces)]  # two newlines are one id


@pytest.mark.parametrize("template", JOINED)
def test_of_clean_histories_only_words_of_titles_are_tokenised(template, tmp_path, monkeypatch):
    tokenizer, history = KNOWN["qwen"](), _histories(np.random.default_rng(5), len(CLEAN))
    encode, encoded = Tokenizer.encode, []
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts))
    expected = _prompts(template, tokenizer, CLEAN, tmp_path / "cache").of_items(history)
    words = filled(template, category="books")
    around = {words.apart, words.lead, words.lead + words.before + words.closing}
    assert all(len(SPACE_BORDER.split(text)) == 1 for text in set(encoded) - around)
    encoded.clear()
    again = _prompts(template, tokenizer, CLEAN, tmp_path / "cache").of_items(history)
    assert not encoded
    assert not again.pieces.rows.ids.flags.owndata  # mapped, not read
    assert lists_of(again) == lists_of(expected)
    other = _prompts(template, tokenizer, CLEAN[::-1], tmp_path / "cache").of_items(history)
    assert lists_of(other) != lists_of(expected)


@pytest.mark.parametrize("name", KNOWN | OTHERS)
def test_no_histories_make_no_prompts(name):
    prompts = _prompts("plain", (KNOWN | OTHERS)[name](), CLEAN)
    rows = prompts.of_items(Ragged.from_lists([]))
    assert len(rows) == len(prompts.of_texts([])) == _n_whole(rows) == 0


@pytest.mark.parametrize("template", OF_WORDS)
def test_prompts_of_empty_histories_and_without_one(template):
    tokenizer = _with_bos()
    prompts = _prompts(template, tokenizer, CLEAN)
    _check(prompts, tokenizer, template, CLEAN, Ragged.from_lists([[], [], []]))
    expected = tokenizer.encode_prompts([render(filled(template, category="books"), None)])
    assert prompts.without_history().tolist() == expected[0].tolist()
    assert prompts.without_history()[0] == 5


class Codes:
    """Items as ids of their own, beyond the tokenizer's."""

    vocab_size, texts, names = 1000, None, {}

    def rows(self) -> Ragged:
        return Ragged.from_lists([[900, 901, 0], [900, 902, 0], [903, 904, 0]])

    def mentions(self) -> Ragged:
        return Ragged.from_lists([[900, 901], [900, 902], [903, 904]])


@pytest.mark.parametrize("name", ["with a bos", "unigram"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_items_that_are_no_words_stand_as_their_ids_between_the_words(template, name):
    tokenizer = (KNOWN | OTHERS)[name]()
    words = filled(template, category="books")
    prompts = Prompts(words, tokenizer, Codes(), Path("no such") / "cache")
    lead, closing = tokenizer.encode([words.lead, words.closing])
    end = [tokenizer.eos] if template == "letter" else []
    closing = closing + end
    lead = tokenizer.encode([words.apart])[0] + lead
    lead = lead if tokenizer.bos is None else [tokenizer.bos, *lead]
    expected = [[*lead, 903, 904, 900, 901, *closing], [*lead, *closing], [*lead, 900, 902, *closing]]
    rows = prompts.of_items(Ragged.from_lists([[2, 0], [], [1]]))
    assert lists_of(rows) == expected
    assert _n_whole(rows) == 0
    with pytest.raises(InputError, match="not written in words"):
        prompts.of_texts([["Sahara"]])
    expected = tokenizer.encode_prompts([render(words, None)])
    assert prompts.without_history().tolist() == [*expected[0].tolist(), *end]


@pytest.mark.parametrize("template", ["d3", "plain"])
@pytest.mark.parametrize(
    "folder", [pytest.param("data/qwen2.5-tokenizer", marks=pytest.mark.slow), "models/tiny-qwen2-books"]
)
def test_joined_prompts_of_real_titles_have_the_ids_of_the_whole(shared, template, folder):
    tokenizer, rng = load_tokenizer(shared / folder), np.random.default_rng(6)
    lines = (shared / "data" / "amazon_books" / "Amazon_Books.info.txt").read_text(encoding="utf-8").splitlines()
    titles = [line.rpartition("\t")[0] for line in lines]
    prompts = _prompts(template, tokenizer, titles)
    each = np.arange(len(titles), dtype=np.int32)
    three = np.stack([each, rng.permutation(each), rng.permutation(each)], axis=1)
    rows = prompts.of_items(Ragged(three.ravel(), 3 * np.arange(len(each) + 1)))
    joined = rows.take(each)
    whole = prompts.of_texts([[titles[item] for item in row] for row in three.tolist()])
    np.testing.assert_array_equal(joined.start, whole.start)
    np.testing.assert_array_equal(joined.ids, whole.ids)
    assert _n_whole(rows) <= 3 * sum(title != title.strip() or not title for title in titles)


def test_golden_prompts_are_joined_as_the_authors_tokenise_them(shared):
    folder = shared / "golden" / "igd_amazon_books"
    given = json.loads((folder / "igd_decoding.json").read_text(encoding="utf-8"))["prompts"]
    with (folder / "test_rows.csv").open(encoding="utf-8", newline="") as file:
        histories = [literal_eval(row["history_item_title"]) for row in csv.DictReader(file)]
    titles = sorted({title for history in histories for title in history})
    prompts = _prompts("igd", load_tokenizer(shared / "models" / "tiny-qwen2-books"), titles)
    rows = prompts.of_items(Ragged.from_lists([[titles.index(t) for t in row] for row in histories]))
    assert lists_of(rows) == given
    assert lists_of(prompts.of_texts(histories)) == given
    assert _n_whole(rows) == 0
