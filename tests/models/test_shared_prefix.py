"""What all prompts begin with is read once: states, gradients and memory of a decoder that is trained so."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from tiny_models import DECODER, random_model

from igd_jax.models.decoder import Decoder

MODEL = random_model("decoder", spread=0.1)


def batches(n_rows, *, prefix, prompt, target):
    """The same rows twice: after a shared prefix, and as whole prompts."""
    random = np.random.default_rng(0)
    shared, lengths = random.integers(3, 50, prefix).tolist(), random.integers(prompt // 2, prompt + 1, n_rows)
    prompts = [random.integers(3, 50, length).tolist() for length in [prompt, *lengths[1:]]]
    targets = [random.integers(3, 50, target).tolist() for _ in range(n_rows)]
    return text_batch(prompts, targets, shared=shared), text_batch([shared + each for each in prompts], targets)


@jax.jit
def states_and_gradients(weights, batch):
    def loss(weights):
        states = nnx.merge(nnx.graphdef(MODEL), weights).target_hidden(batch)
        return jnp.square(states).sum(), states

    gradients, states = jax.grad(loss, has_aux=True)(weights)
    return states, gradients


states_alone = nnx.jit(lambda model, batch: model.target_hidden(batch))


@pytest.mark.parametrize("size", [{"prefix": 5, "prompt": 12, "target": 4}, {"prefix": 64, "prompt": 192, "target": 8}])
def test_states_and_gradients_are_those_of_whole_prompts(size):
    apart, whole = batches(8, **size)
    found, expected = (states_and_gradients(nnx.state(MODEL), batch) for batch in (apart, whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(b).max()), found, expected)
    np.testing.assert_allclose(states_alone(MODEL, apart), expected[0], rtol=1e-5, atol=1e-5)


def test_a_shared_prefix_needs_no_second_gradient_of_the_layers():
    config = dataclasses.replace(DECODER, hidden_size=256, mlp_size=512, num_layers=4)
    graph, weights = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    apart, whole = batches(1, prefix=2, prompt=4, target=2)
    most = [
        jax.jit(jax.grad(lambda w, batch=batch: nnx.merge(graph, w).target_hidden(batch).sum()))
        .lower(weights)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for batch in (apart, whole)
    ]
    of_layers = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights["layers"]))
    assert most[0] < most[1] + of_layers / 2
