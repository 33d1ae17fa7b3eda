"""Methods are files: their names and arguments are checked before anything runs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_run import HF_CONFIG

import igd_jax.methods
from igd_jax.core.errors import InputError
from igd_jax.methods.base import Method, load_method, target_logits
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import causal_mask, positions_of

NAMES = sorted(path.stem for path in Path(igd_jax.methods.__path__[0]).glob("[!_]*.py") if path.stem != "base")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_holds_one_final_method(name):
    method = load_method(name, {})
    assert type(method).__bases__ == (Method,)
    assert type(method).__module__ == f"igd_jax.methods.{name}"


@pytest.mark.parametrize("name", ["idg", "base", "__init__", "../igd", "igd_jax.methods.igd", ""])
def test_an_unknown_method_lists_those_there_are(name):
    with pytest.raises(InputError) as caught:
        load_method(name, {})
    assert str(caught.value) == f"config.method.name is {name!r}; known methods are {', '.join(NAMES)}"


def test_an_unknown_argument_lists_those_it_takes():
    with pytest.raises(InputError, match=r"config.method.args has alpha, gamma; igd takes beta$"):
        load_method("igd", {"gamma": 1.0, "beta": 0.5, "alpha": 2})


def test_a_header_apart_gives_the_logits_of_whole_prompts():
    rng = np.random.default_rng(0)
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    header = rng.integers(0, 300, 4).astype(np.int32)
    prompt = rng.integers(0, 300, (3, 5)).astype(np.int32)
    rest = {"target": rng.integers(0, 300, (3, 3)).astype(np.int32), "target_mask": np.ones((3, 3), bool)}
    apart = rest | {"header": np.tile(header, (3, 1)), "prompt": prompt, "prompt_mask": np.ones((3, 5), bool)}
    whole = np.concatenate([apart["header"], prompt], axis=1)
    joined = rest | {"prompt": whole, "prompt_mask": np.ones(whole.shape, bool)}
    ours, theirs = (nnx.jit(target_logits)(model, jax.tree.map(jnp.asarray, batch)) for batch in (apart, joined))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_target_logits_are_those_of_a_run_over_everything_shifted_by_one():
    rng = np.random.default_rng(0)
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    n_target = np.array([1, 3, 2])
    batch = {
        "prompt": rng.integers(0, 300, (3, 5)).astype(np.int32),
        "prompt_mask": np.arange(5) >= n_target[:, None] - 1,
        "target": rng.integers(0, 300, (3, 3)).astype(np.int32),
        "target_mask": np.arange(3) < n_target[:, None],
    }
    ours = nnx.jit(target_logits)(model, jax.tree.map(jnp.asarray, batch))
    assert ours.dtype == jnp.float32

    @nnx.jit
    def everything(model, ids):
        valid = jnp.ones(ids.shape, bool)
        hidden, _ = model(ids, positions=positions_of(valid), mask=causal_mask(valid))
        return model.logits(hidden)

    whole = [
        np.concatenate([batch[name][row][batch[f"{name}_mask"][row]] for name in ("prompt", "target")])
        for row in range(3)
    ]
    theirs = everything(model, jnp.asarray(np.stack(whole)))  # six real tokens in each row
    for row, n in enumerate(n_target):
        np.testing.assert_allclose(ours[row, :n], theirs[row, 5 - n : 5], atol=1e-5)
