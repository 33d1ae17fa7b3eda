"""The first token of each title, as the figure of homogeneity counts it."""

import numpy as np
import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import END_OF_TEXT, Tokenizer
from igd_jax.items.index import build_index
from igd_jax.session.analysis import first_tokens

TITLES = ["The Heron", "The Fox", "1984", "Émile", "¡Heron!", "", "The Fox"]


@pytest.fixture(scope="module")
def qwen_like() -> Tokenizer:
    """Byte-level BPE with the words of Qwen, which join a quote with the letters after it, but not with digits."""
    backend = tokenizers.Tokenizer(models.BPE())
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(['"The Heron"', '"The Fox"', "The Heron", "The Fox"] * 9, trainer)
    return Tokenizer(backend, backend.token_to_id(END_OF_TEXT), None)


@pytest.mark.parametrize("quote", ["", '"'])
def test_titles_begin_with_their_own_first_token_whatever_quotes_them(qwen_like, quote):
    rows = qwen_like.encode_titles(TITLES, quote, quote + "\n")
    index = build_index(TITLES, rows, np.ones(len(TITLES), int), candidates=np.ones(len(TITLES), bool))
    if quote:  # some share the quote as a token, others have it in one with letters
        begin = {qwen_like.decode([token]) for token in rows.ids[rows.start[:-1]].tolist()}
        assert '"' in begin
        assert any(text.startswith('"T') for text in begin)
    found = first_tokens(index.catalog, TITLES, qwen_like)[index.catalog.row_of_item]
    expected = [(qwen_like.encode([title])[0] or [-1])[0] for title in TITLES]
    assert found.tolist() == expected
    assert len(set(expected)) == 5  # of The, 1, É, ¡ and nothing


def test_identifiers_that_are_no_words_begin_with_the_first_token_that_not_all_share(qwen_like):
    codes = Ragged.from_lists([[5, 7, 1, 0], [5, 7, 2, 0], [5, 8, 1, 0]])
    index = build_index(["a", "b", "c"], codes, np.ones(3, int), candidates=np.ones(3, bool))
    assert first_tokens(index.catalog, None, qwen_like).tolist() == [7, 7, 8]
    alone = build_index(["a"], Ragged.from_lists([[5, 7, 0]]), np.ones(1, int), candidates=np.ones(1, bool))
    assert first_tokens(alone.catalog, None, qwen_like).tolist() == [0]
