"""The free search against a plain loop that runs the whole model over every text it looks at."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx

from igd_jax.core.errors import InputError
from igd_jax.core.types import TextBatch
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.unconstrained import Texts, unconstrained_search
from igd_jax.models.config import ModelConfig
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Causal, positions_of

VOCAB, EOS, LONGEST = 13, 0, 6
PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11], [4, 4, 1], [1, 7, 1, 4, 6]]  # the last needs 2K children of one beam


@pytest.fixture(scope="module")
def model() -> Decoder:
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=16, mlp_size=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
        rope_theta=100.0, rms_norm_eps=1e-6, tie_embeddings=False, qkv_bias=True, max_positions=64,
    )  # fmt: skip

    @nnx.jit
    def make() -> Decoder:
        graph, weights = nnx.split(Decoder(config, rngs=nnx.Rngs(3)))
        return nnx.merge(graph, jax.tree.map(lambda x: x * 5.0, weights))  # else all tokens are about equally likely

    return make()


@nnx.jit
def all_logp(model: Decoder, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    hidden, _ = model(tokens, positions=positions_of(mask), visible=Causal(mask))
    return jax.nn.log_softmax(model.logits(hidden), axis=-1)


def next_logp(model: Decoder, texts: list[list[int]], *, size: int) -> np.ndarray:
    """[n V]: log-probabilities after each text, without a cache."""
    width = max(map(len, PROMPTS)) + LONGEST
    tokens, mask = np.zeros((size, width), np.int32), np.zeros((size, width), bool)
    mask[:, 0] = True
    for row, text in enumerate(texts):
        tokens[row, : len(text)], mask[row, : len(text)] = text, True
    logp = np.asarray(all_logp(model, jnp.asarray(tokens), jnp.asarray(mask)))
    return logp[np.arange(len(texts)), [len(text) - 1 for text in texts]]


def plain_search(
    model: Decoder, prompt: list[int], *, k: int, max_length: int, length_penalty: float, min_new_tokens: int = 0
) -> list[tuple[float, list[int]]]:
    """Score and tokens of each text, best first: every token after every beam is a candidate, the end if it may be."""
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, max_length + 1):
        logp = next_logp(model, [prompt + text for _, text in running], size=k)
        every = [
            (total + float(logp[beam, token]), [*text, token])
            for beam, (total, text) in enumerate(running)
            for token in range(VOCAB)
            if token != EOS or length > min_new_tokens
        ]
        best = sorted(every, key=lambda pair: -pair[0])[: 2 * k]
        ends = [pair for pair in best[:k] if pair[1][-1] == EOS or length == max_length]
        finished = sorted(
            finished + [(total / length**length_penalty, text) for total, text in ends], key=lambda pair: -pair[0]
        )[:k]
        running = [pair for pair in best if pair[1][-1] != EOS][:k]
        if len(finished) == k and finished[-1][0] >= running[0][0] / length**length_penalty:
            break
    return finished


def batch_of(prompts: list[list[int]], *, shared: list[int] | None = None) -> TextBatch:
    """Left-padded prompts; an empty one is a row that only fills up."""
    return text_batch(prompts, width=max(map(len, prompts)) + 1, shared=shared)


def options_of(k: int, *, max_length: int = LONGEST, length_penalty: float = 0.0) -> SearchOptions:
    return SearchOptions(num_beams=k, max_length=max_length, length_penalty=length_penalty)


@partial(jax.jit, static_argnames="least")
def compiled(parts: Any, batch: TextBatch, options: SearchOptions, temperature: jax.Array, least: int) -> Texts:
    return unconstrained_search(
        nnx.merge(*parts), batch, options, temperature=temperature, eos=EOS, min_new_tokens=least
    )


def search(
    model: Decoder, batch: TextBatch, options: SearchOptions, *, temperature: float = 1.0, min_new_tokens: int = 0
) -> Texts:
    return compiled(nnx.split(model), batch, options, jnp.float32(temperature), min_new_tokens)


def texts_of(found: Texts, row: int) -> list[list[int]]:
    return [tokens[:n].tolist() for tokens, n in zip(np.asarray(found.tokens[row]), found.lengths[row], strict=True)]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("length_penalty", [0.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (0.5, 1.0, 2.0))])
def test_texts_are_those_of_a_plain_loop_over_the_uncached_model(model, k, length_penalty):
    found = search(model, batch_of(PROMPTS), options_of(k, length_penalty=length_penalty))
    for row, prompt in enumerate(PROMPTS):
        expected = plain_search(model, prompt, k=k, max_length=LONGEST, length_penalty=length_penalty)
        assert texts_of(found, row) == [text for _, text in expected]
        np.testing.assert_allclose(found.scores[row], [score for score, _ in expected], rtol=1e-4)
    assert (found.tokens[np.arange(LONGEST) >= np.asarray(found.lengths)[..., None]] == 0).all()


@pytest.mark.parametrize("max_length", [1, 2])
def test_more_beams_than_half_the_vocabulary_and_hardly_any_tokens(model, max_length):
    found = search(model, batch_of(PROMPTS), options_of(8, max_length=max_length))
    for row, prompt in enumerate(PROMPTS):
        expected = plain_search(model, prompt, k=8, max_length=max_length, length_penalty=0.0)
        assert texts_of(found, row) == [text for _, text in expected]


@pytest.mark.parametrize("min_new_tokens", [2, LONGEST])
def test_no_text_ends_before_its_minimum_of_tokens(model, min_new_tokens):
    found = search(model, batch_of(PROMPTS), options_of(3, length_penalty=1.0), min_new_tokens=min_new_tokens)
    free = search(model, batch_of(PROMPTS), options_of(3, length_penalty=1.0))
    assert np.asarray(free.lengths).min() <= 2
    for row, prompt in enumerate(PROMPTS):
        expected = plain_search(
            model, prompt, k=3, max_length=LONGEST, length_penalty=1.0, min_new_tokens=min_new_tokens
        )
        assert texts_of(found, row) == [text for _, text in expected]
        assert all(len([token for token in text if token != EOS]) >= min_new_tokens for text in texts_of(found, row))


def test_eos_ends_a_text_and_a_cut_one_keeps_all_its_tokens(model):
    found = search(model, batch_of(PROMPTS), options_of(3, length_penalty=1.0))
    texts = [text for row in range(len(PROMPTS)) for text in texts_of(found, row)]
    assert all(EOS not in text[:-1] for text in texts)
    assert all(text[-1] == EOS or len(text) == LONGEST for text in texts)
    assert {text[-1] == EOS for text in texts} == {True, False}


def test_a_shared_prefix_apart_writes_what_whole_prompts_write(model):
    shared = [2, 7, 1]
    apart = search(model, batch_of(PROMPTS, shared=shared), options_of(3))
    whole = search(model, batch_of([shared + prompt for prompt in PROMPTS]), options_of(3))
    np.testing.assert_array_equal(apart.tokens, whole.tokens)
    np.testing.assert_allclose(apart.scores, whole.scores, rtol=1e-4)


def test_rows_that_fill_up_the_batch_find_nothing_and_change_nothing(model):
    found = search(model, batch_of([PROMPTS[0], [], PROMPTS[2], []]), options_of(3))
    alone = search(model, batch_of(PROMPTS), options_of(3))
    np.testing.assert_array_equal(found.tokens[jnp.array([0, 2])], alone.tokens[jnp.array([0, 2])])
    filler = jnp.array([1, 3])
    assert (found.lengths[filler] == 0).all()
    assert (found.tokens[filler] == 0).all()
    assert (found.scores[filler] == -jnp.inf).all()


def test_ties_go_to_the_earlier_beam_and_the_lower_token(model):
    flat = nnx.clone(model)
    flat.head[...] = jnp.zeros_like(flat.head[...])
    found = search(flat, batch_of(PROMPTS[:1]), options_of(3, max_length=2))
    # All tokens are equally likely: the first texts are the end at once, and then the lowest tokens.
    assert texts_of(found, 0) == [[EOS], [1, EOS], [1, 1]]


def test_temperature_rescales_scores(model):
    plain, warm = (
        search(model, batch_of(PROMPTS), options_of(3, length_penalty=0.5), temperature=temperature)
        for temperature in (1.0, 2.0)
    )
    np.testing.assert_array_equal(plain.tokens, warm.tokens)
    np.testing.assert_allclose(plain.scores, 2 * warm.scores, rtol=1e-5)


def test_one_trace_serves_all_batches_of_a_shape(model):
    traces = []

    @jax.jit
    def traced(batch: TextBatch, temperature: jax.Array) -> Texts:
        traces.append(1)
        return unconstrained_search(model, batch, options_of(2), temperature=temperature, eos=EOS)

    found = [traced(batch_of(prompts), jnp.float32(1)) for prompts in (PROMPTS, PROMPTS[::-1])]
    traced(batch_of(PROMPTS), jnp.float32(3))
    assert len(traces) == 1
    np.testing.assert_array_equal(found[0].tokens, found[1].tokens[::-1])


def test_more_texts_than_there_are_names_for_are_bad_input(model):
    with pytest.raises(
        InputError, match=r"^3 beams of 100000000 tokens over 13 ids are more than the free search can "
    ):
        nnx.eval_shape(
            lambda model, batch: unconstrained_search(
                model, batch, options_of(3, max_length=10**8), temperature=1.0, eos=EOS
            ),
            model,
            batch_of(PROMPTS),
        )
