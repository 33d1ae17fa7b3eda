"""Dropout of our T5: at the places of the transformers library, in training alone, and whatever stands beside a row."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from random_t5 import VERSIONS, save_random
from tiny_models import random_model

from igd_jax.core.errors import InputError
from igd_jax.models import attention, t5_layers
from igd_jax.models.load import load_backbone, random_backbone
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import NAMED, from_hf, to_hf
from igd_jax.models.t5_weights import load_t5
from igd_jax.models.visibility import Causal, both_sides

PROMPTS, TARGETS = [[5, 6, 7, 8], [9, 10]], [[11, 12, 1], [13, 1]]


@nnx.jit
def states(model, batch):
    return model.target_hidden(batch)


@pytest.fixture(scope="module")
def model() -> T5:
    return random_model("T5 1.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_number_may_be_dropped_wherever_it_may_be_in_transformers(version, tmp_path, monkeypatch):
    """Both libraries drop by one and the same function without chance, so that their outputs show all places."""
    torch = pytest.importorskip("torch")
    theirs = save_random(version, tmp_path).train()
    theirs.set_attn_implementation("eager")  # another would drop inside its kernel
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False: x + torch.sin(x))
    monkeypatch.setattr(t5_layers, "drop", lambda x, keys, *, rate: x + jnp.sin(x))
    monkeypatch.setattr(t5_layers, "drop_pairs", lambda x, keys, numbers, *, rate: x + jnp.sin(x))
    rng = np.random.default_rng(0)
    ids, written = rng.integers(0, 60, (2, 9)), rng.integers(0, 60, (2, 5))
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(ids), decoder_input_ids=torch.from_numpy(written), output_hidden_states=True
        )
    ours, real = load_t5(tmp_path, dropout=0.1), [jnp.ones(x.shape, bool) for x in (ids, written)]
    places = [jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape) for x in (ids, written)]
    keys = [ours.dropout_keys(jnp.arange(2), valid, is_decoder=valid is real[1]) for valid in real]
    encoded = ours.encode(jnp.asarray(ids), positions=places[0], visible=both_sides(real[0]), keys=keys[0])
    memory = ours.memory_of(encoded, real[0])
    decoded, _ = ours.decode(jnp.asarray(written), memory, positions=places[1], visible=Causal(real[1]), keys=keys[1])
    np.testing.assert_allclose(encoded, expected.encoder_last_hidden_state.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(decoded, expected.decoder_hidden_states[-1].numpy(), rtol=1e-4, atol=1e-4)


def test_rows_without_seeds_and_models_without_dropout_are_as_before(model):
    batch = text_batch(PROMPTS, TARGETS, shared=[3])
    seeded = batch.replace(seed=jnp.array([7, 8]))
    program = str(jax.make_jaxpr(lambda batch: model.target_hidden(batch))(batch))
    assert "random" not in program
    assert "threefry" not in program
    off = T5(dataclasses.replace(model.config, dropout=0.0), rngs=nnx.Rngs(0))
    nnx.update(off, nnx.state(model))
    np.testing.assert_array_equal(states(off, seeded), states(off, batch))
    assert np.abs(np.asarray(states(model, seeded) - states(model, batch)))[np.asarray(batch.target_mask)].min() > 0


def test_only_with_seeds_are_weights_of_attention_joined_and_divided_to_be_dropped(model, monkeypatch):
    asked = []

    def attend(*args, drop, **kwargs):
        asked.append(drop is not None)
        return attention.attend(*args, drop=drop, **kwargs)

    monkeypatch.setattr(t5_layers, "attend", attend)
    batch = text_batch(PROMPTS, TARGETS)
    for seed in (None, jnp.array([7, 8])):
        asked.clear()
        jax.eval_shape(lambda batch: model.target_hidden(batch), batch.replace(seed=seed))
        assert asked
        assert set(asked) == {seed is not None}


def test_the_draws_of_a_row_follow_from_its_seed_alone(model):
    both = text_batch(PROMPTS, TARGETS, shared=[3]).replace(seed=jnp.array([7, 8]))
    second = text_batch(PROMPTS[1:], TARGETS[1:], shared=[3]).replace(seed=jnp.array([8]))
    found = states(model, second)
    np.testing.assert_allclose(states(model, both)[1, :2], found[0], rtol=1e-4, atol=1e-4)
    assert np.abs(states(model, second.replace(seed=jnp.array([9]))) - found).max() > 0.1


# ---------------------------------------------------------------------------------------------------------------- rates
def test_the_rate_is_that_of_the_config_unless_another_is_given(tmp_path):
    save_random("1.0, relu, tied", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert load_backbone(tmp_path).config.dropout == config["dropout_rate"] == 0.0
    assert load_backbone(tmp_path, dropout=0.2).encoder.layers.mlp.dropout == 0.2
    assert from_hf({name: x for name, x in config.items() if name != "dropout_rate"}).dropout == 0.1
    assert from_hf(to_hf(from_hf(config | {"dropout_rate": 0.3}))).dropout == 0.3
    assert {config.dropout for config in NAMED.values()} == {0.1}
    made = nnx.eval_shape(lambda: random_backbone("t5-pico", vocab_size=300, rngs=nnx.Rngs(0), dropout=0.0))
    assert made.config.dropout == made.decoder.layers.dropout == 0.0
    for rate in (1.0, -0.1, True, "some"):
        with pytest.raises(InputError, match=r"dropout_rate is .*, expected a probability from 0 to below 1"):
            from_hf(config | {"dropout_rate": rate})
    with pytest.raises(InputError, match=r"^pico is a decoder, which has no dropout; got a rate of 0.1; set none$"):
        random_backbone("pico", vocab_size=300, rngs=nnx.Rngs(0), dropout=0.1)
