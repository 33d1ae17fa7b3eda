"""What remains of tokens at the ends of texts: the ids of bare titles, from those of written ones."""

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from bigrec_calls import TOKENIZER, remainders_of
from tiny_run import HF_CONFIG, TITLES
from tokenizers import models

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Remainders
from igd_jax.data.remainders import remainders
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.decoding.grounding import cut


@pytest.fixture(scope="module")
def qwen(shared) -> tuple[Tokenizer, Remainders]:
    tokenizer = load_tokenizer(shared / "data" / "qwen2.5-tokenizer")
    return tokenizer, Remainders(*map(jnp.asarray, remainders(tokenizer, vocab_size=tokenizer.vocab_size, quote='"')))


def cut_rows(rows: Ragged, left: Remainders) -> list[list[int]]:
    tokens, lengths = cut(jnp.asarray(rows.pad(int(rows.lengths.max()))), jnp.asarray(rows.lengths), left)
    return [row[:length].tolist() for row, length in zip(np.asarray(tokens), np.asarray(lengths), strict=True)]


@pytest.mark.parametrize("around", [("", "\n"), ('"', '"\n'), ('"', '"')])
def test_cut_rows_of_the_catalogue_are_the_ids_of_their_titles(around):
    left = remainders_of(TOKENIZER, quote=around[0])
    assert len(left.end) == len(left.opening) == len(left.closing) == HF_CONFIG["vocab_size"]
    assert cut_rows(TOKENIZER.encode_titles(TITLES, *around), left) == TOKENIZER.encode(TITLES)


def tokenizer_of(tokens: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    """Ids are places in the list; the first token is EOS."""
    backend = tokenizers.Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(tokens)}, merges=merges))
    backend.add_special_tokens(tokens[:1])
    return Tokenizer(backend, eos=0, bos=None)


def test_of_a_token_with_a_newline_stays_the_token_of_what_stands_before_it():
    tokens = ["<e>", "a", ")", "\n", ")\n", "\n)", "b", "a)", "a)\n", "b)", "b)\n"]
    merges = [(")", "\n"), ("\n", ")"), ("a", ")"), ("a)", "\n"), ("b", ")\n")]
    found = remainders(tokenizer_of(tokens, merges), vocab_size=13, quote="")
    differ = {0: -1, 3: -1, 4: 2, 5: -1, 8: 7, 10: -1}  # "b)" is two tokens
    assert found.end.tolist() == [differ.get(token, token) for token in range(13)]
    assert found.opening.tolist() == found.closing.tolist() == list(range(13))


def test_quotes_are_taken_off_a_token_on_their_side_where_the_rest_is_one_token():
    tokens = ["<e>", '"', "a", "b", '"a', 'a"', '""', '"b', "ab", 'ab"']
    merges = [('"', "a"), ("a", '"'), ('"', '"'), ('"', "b"), ("a", "b"), ("ab", '"')]
    found = remainders(tokenizer_of(tokens, merges), vocab_size=10, quote='"')
    opening, closing = {1: -1, 4: 2, 6: -1, 7: 3}, {1: -1, 5: 2, 6: -1, 9: 8}
    assert found.opening.tolist() == [opening.get(token, token) for token in range(10)]
    assert found.closing.tolist() == [closing.get(token, token) for token in range(10)]
    whole = remainders(tokenizer_of([*tokens[:8], "c", 'ac"'], merges[:4]), vocab_size=10, quote='"')
    assert whole.closing[9] == 9  # "ac" is two tokens


def test_of_a_token_with_a_quote_and_a_newline_stays_what_stands_before_both():
    tokens = ["<e>", ")", "))", '"', "\n", '"\n', '))"\n']
    merges = [(")", ")"), ('"', "\n"), ("))", '"\n')]
    found = remainders(tokenizer_of(tokens, merges), vocab_size=7, quote='"')
    assert found.end.tolist() == [-1, 1, 2, 3, -1, -1, 2]


@pytest.mark.parametrize("template", ["d3", "msl"])
def test_real_titles_in_quotes_are_cut_to_their_words_with_the_tokenizer_of_qwen(shared, qwen, template):
    tokenizer, left = qwen
    lines = (shared / "data" / "amazon_books" / "Amazon_Books.info.txt").read_text(encoding="utf-8").splitlines()
    titles = [line.rpartition("\t")[0].strip().strip('"') for line in lines[:1000]]
    around = filled(template, category="books").around
    found = cut_rows(tokenizer.encode_titles(titles, *around), left)
    assert [tokenizer.decode(ids) for ids in found] == titles
    same = [a == b for a, b in zip(found, tokenizer.encode(titles), strict=True)]
    assert np.mean(same) > 0.94  # others begin or end with a word that is split otherwise beside a quote
