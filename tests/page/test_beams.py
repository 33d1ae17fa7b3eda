"""What a tree keeps of a search that is written by hand.

The titles are "a", "b c" and "d e"; the trie holds, depth first: a (1) and its end (2), b c (3, 4) and its end (5), d e
(6, 7) and its end (8).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import tokenizers

from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.page.beams import Beam, _record, _tree

TOKEN = np.array([0, 1, 0, 2, 3, 0, 4, 5, 0], np.int32)


class Letters(Tokenizer):
    """Each token is a letter, and the end a full stop, which is no EOS here, as that has no text in a tree."""

    def shown(self, ids: Sequence[int]) -> str:
        return "".join(".abcde"[token] for token in ids)


LETTERS = Letters(tokenizers.Tokenizer(tokenizers.models.BPE()), 6, None)


def step(running: dict[int, float], done: dict[int, float], *, is_open: bool = True) -> Hypotheses:
    """State of one row with three beams."""

    def padded(values, fill, dtype):
        return jnp.array([[*values, *[fill] * (3 - len(values))]], dtype)

    zeros = jnp.zeros((1, 3), jnp.int32)
    return Hypotheses(
        parent=zeros,
        node=padded(running, -1, jnp.int32),
        token=zeros,
        score=padded(running.values(), -jnp.inf, jnp.float32),
        clock=jnp.zeros(1, jnp.int32),
        done_score=padded(done.values(), -jnp.inf, jnp.float32),
        done_node=padded(done, -1, jnp.int32),
        is_open=jnp.array([is_open]),
    )


def beam_of(*steps: Hypotheses, top_k: int) -> Beam:
    beam = Beam()
    assert [_record([beam], each, top_k=top_k) for each in steps] == [True] * (len(steps) - 1) + [False]
    return beam


def places(node, before: str = "") -> dict[str, int | None]:
    """Place of each path of a tree that ends."""
    text = before + node.text
    below = [places(child, text) for child in node.children]
    return {path: rank for each in below for path, rank in each.items()} or {text: node.rank}


def test_a_title_that_better_ones_push_out_of_the_list_takes_no_other_with_it():
    first = step({1: -1.0, 3: -2.0, 6: -3.0}, {})
    second = step({4: -2.0, 7: -3.0}, {2: -9.0})
    beam = beam_of(first, second, step({}, {5: -2.0, 8: -3.0}, is_open=False), top_k=3)
    assert 2 in beam.parent
    assert places(_tree(beam, beam, token=TOKEN, tokenizer=LETTERS)) == {"a": None, "bc.": 1, "de.": 2}


def test_a_title_that_only_one_search_pushes_out_stays():
    first = step({1: -1.0, 3: -2.0, 6: -3.0}, {})
    second = step({4: -2.0, 7: -3.0}, {2: -9.0})
    kept, pushed = ({2: -9.0, 5: -9.5, 8: -9.7}, {5: -2.0, 8: -3.0})
    with_it, without = (beam_of(first, second, step({}, ends, is_open=False), top_k=3) for ends in (kept, pushed))
    tree = _tree(without, with_it, token=TOKEN, tokenizer=LETTERS)
    (end,) = next(child for child in tree.children if child.text == "a").children
    assert (end.text, end.score, end.plain, end.rank, end.plain_rank) == (".", None, -9.0, None, 1)


def test_a_list_shorter_than_the_beam_is_wide_has_no_further_titles():
    first = step({1: -1.0, 3: -2.0, 6: -3.0}, {})
    second = step({4: -2.0, 7: -3.0}, {2: -1.0})
    beam = beam_of(first, second, step({}, {2: -1.0, 5: -2.0, 8: -3.0}, is_open=False), top_k=2)
    assert beam.ends == {2: -1.0, 5: -2.0}
    assert places(_tree(beam, beam, token=TOKEN, tokenizer=LETTERS)) == {"a.": 1, "bc.": 2, "de": None}


def test_tokens_of_new_ids_are_told_by_number_and_the_end_has_no_text():
    tokenizer = train_tokenizer(["a"], vocab_size=300)
    first, eos = tokenizer.vocab_size, tokenizer.eos
    token = np.array([0, first, first + 1, eos, first + 2, eos], np.int32)  # two items of two codes each begin alike
    steps = (step({1: -1.0}, {}), step({2: -2.0, 4: -3.0}, {}), step({}, {3: -2.0, 5: -3.0}, is_open=False))
    beam = beam_of(*steps, top_k=2)
    (both,) = _tree(beam, beam, token=token, tokenizer=tokenizer).children
    assert (both.text, [child.text for child in both.children]) == (f"<{first}>", [f"<{first + 1}>", f"<{first + 2}>"])
