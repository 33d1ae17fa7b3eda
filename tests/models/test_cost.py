"""Operations and bytes by arithmetic: as counted by hand, and as the compiler counts what it was given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx

from igd_jax.core.types import ItemBatch
from igd_jax.models.config import NAMED
from igd_jax.models.cost import activation_bytes, real_tokens, training_flops
from igd_jax.models.decoder import Decoder
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import NAMED as T5S

SMALL = dataclasses.replace(
    NAMED["pico"], hidden_size=4, mlp_size=8, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=2
)
BATCH = jax.tree.map(np.asarray, text_batch([[5, 6], [7]], [[8, 1], [1]], shared=[3]))


def test_padding_does_not_count_and_a_shared_prefix_counts_once():
    assert real_tokens(BATCH) == 1 + 4 + 2
    items = ItemBatch(np.zeros((2, 3), int), np.array([[0, 1, 1], [0, 0, 1]], bool), np.zeros(2, int), np.ones(2, bool))
    assert real_tokens(items) == 3


def test_operations_of_a_decoder_are_those_counted_by_hand():
    linear = 2 * 7 * 3 * (4 * (2 * 4 + 2 * 2 + 3 * 8))  # 7 tokens, 3 layers
    head = 2 * 3 * 4 * 10  # 3 targets, 10 ids
    attention = 4 * (1 + (4 + 1 + 2 + 3 + 4) + (2 + 1 + 2)) * 3 * 4  # pairs: of the prefix, and of each row
    assert training_flops(SMALL, vocab_size=10)(BATCH) == 3 * (linear + head + attention)
    found = training_flops(SMALL, vocab_size=10, adapters=5)(BATCH)
    assert found == 2 * (linear + head) + 3 * attention + 6 * 7 * 5
    assert training_flops(SMALL, vocab_size=10, adapters=5, trains_head=True)(BATCH) == found + head


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_operations_are_those_of_the_program_but_for_what_causality_hides(kind):
    sizes = {"hidden_size": 256, "mlp_size": 1024, "num_layers": 1, "vocab_size": 512}
    if kind == "t5":
        config = dataclasses.replace(T5S["t5-pico"], **sizes, num_decoder_layers=1, dropout=0.0)
        graph, params = nnx.split(nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0))))
    else:
        config = dataclasses.replace(NAMED["pico"], **sizes)
        graph, params = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    batch = text_batch([list(range(5, 45))] * 4, [list(range(5, 21))] * 4)

    def loss(params):
        model = nnx.merge(graph, params)
        return jnp.square(model.logits(model.target_hidden(batch))).mean()

    counted = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]
    found = training_flops(config, vocab_size=512)(jax.tree.map(np.asarray, batch))
    assert 0.85 * counted < found < counted


def test_what_is_kept_of_each_layer_decides_about_the_activations():
    def size(remat: str, rows: int = 16) -> int:
        sizes = {"rows": rows, "width": 281, "target_rows": rows, "target": 32, "vocab_size": 4096, "itemsize": 4}
        return activation_bytes(NAMED["nano"], remat, **sizes)

    assert size("full") < size("dots") < size("none")
    assert size("dots", rows=32) == 2 * size("dots")
    deeper = dataclasses.replace(NAMED["nano"], num_layers=5)
    sizes = {"rows": 1, "width": 10, "target_rows": 1, "target": 1, "vocab_size": 9, "itemsize": 2}
    more, less = (activation_bytes(config, "full", **sizes) for config in (deeper, NAMED["nano"]))
    assert more - less == 10 * 128 * 2
