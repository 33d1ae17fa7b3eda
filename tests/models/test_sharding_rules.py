"""How the arrays of models and optimizers are split over a mesh."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from igd_jax.core.sharding import FSDP, TENSOR, by_row, keep_rows
from igd_jax.models.layers import look_up
from igd_jax.models.load import random_backbone
from igd_jax.models.lora import TARGETS, LoRA, add_lora
from igd_jax.models.setrec import ItemTokens
from igd_jax.models.sharding_rules import LARGE, RULES, path_of, shardings, whole_arrays
from igd_jax.session.program_cost import collectives
from igd_jax.training.mesh import make_mesh
from igd_jax.training.optimizer import make_optimizer

MESH = make_mesh(data=1, fsdp=4, tensor=2)


def _abstract(make) -> nnx.State:
    return nnx.state(nnx.eval_shape(make))


def _with_adapters() -> nnx.Module:
    model = random_backbone("pico", vocab_size=512, rngs=nnx.Rngs(0))
    add_lora(model, LoRA(2, 4.0, ",".join(TARGETS)), rngs=nnx.Rngs(0))
    return model


class _Items(nnx.Module):
    """What a model has of SETRec's items."""

    def __init__(self):
        tables = jnp.zeros((64, 8)), jnp.zeros((64, 16))
        self.tokens = ItemTokens(*tables, trains_vectors=True, n_semantic=2, width=8, rngs=nnx.Rngs(0))


MODELS = {
    "decoder": lambda: random_backbone("pico", vocab_size=512, rngs=nnx.Rngs(0)),
    "adapters": _with_adapters,
    "t5": lambda: random_backbone("t5-pico", vocab_size=512, rngs=nnx.Rngs(0)),
    "items": _Items,
}


def _specs(tree) -> dict[str, PartitionSpec]:
    return {path_of(path): one.spec for path, one in jax.tree.leaves_with_path(shardings(tree, MESH))}


def test_weights_are_split_by_width_and_within_products():
    specs = _specs(_abstract(MODELS["decoder"]))
    assert specs["embed"] == PartitionSpec(TENSOR, FSDP)
    assert specs["layers.attention.q.kernel"] == PartitionSpec(None, FSDP, TENSOR)
    assert specs["layers.mlp.down.kernel"] == PartitionSpec(None, TENSOR, FSDP)
    assert specs["layers.mlp_norm.scale"] == PartitionSpec()


@pytest.mark.parametrize("name", ["decoder", "adapters", "t5"])
def test_every_matrix_of_a_backbone_is_split(name):
    state = _abstract(MODELS[name])
    for path, spec in _specs(state).items():
        is_matrix = path.endswith(("kernel", "embed", "head", ".a", ".b"))
        assert any(spec) == (is_matrix or path.endswith((".q.bias", ".k.bias", ".v.bias"))), path


def test_scales_of_quantised_weights_are_split_like_these():
    shapes = {"values": jax.ShapeDtypeStruct((2, 512, 256), jnp.int8), "scale": jax.ShapeDtypeStruct((2, 8, 512), "f4")}
    specs = _specs({name: {"kernel": shapes} for name in ("up", "down")})
    assert specs["up.kernel.scale"] == specs["up.kernel.values"] == PartitionSpec(None, FSDP, TENSOR)
    assert specs["down.kernel.scale"] == specs["down.kernel.values"] == PartitionSpec(None, TENSOR, FSDP)


def test_looking_up_tokens_gathers_no_states_of_other_copies_of_the_model():
    mesh, ids = make_mesh(data=2, fsdp=4), jnp.arange(16 * 8).reshape(16, 8) * 5 % 512

    def loss(table, ids):
        return jnp.square(keep_rows(look_up(table, ids).astype(jnp.bfloat16)).astype(jnp.float32)).sum()

    table = jax.random.normal(jax.random.key(0), (512, 64))
    expected = jax.grad(loss)(table, ids)
    split = NamedSharding(mesh, PartitionSpec(TENSOR, FSDP))
    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss), out_shardings=split)
        placed = jax.device_put(table, split), jax.device_put(ids, by_row(mesh))
        found, text = program(*placed), program.lower(*placed).compile().as_text()
    np.testing.assert_array_equal(found, expected)
    states = ids.size * 64 // 4  # of all rows, a quarter of their width, in float32
    assert max(each.size for each in collectives(text) if each.kind == "all-gather") < 4 * states


def test_states_of_an_optimizer_are_split_like_their_parameters():
    params = _abstract(MODELS["decoder"])
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state = jax.eval_shape(optimizer.init, params)
    of_params, of_state = _specs(params), _specs(state)
    for path, spec in of_params.items():
        assert [spec] * 2 == [other for name, other in of_state.items() if name.endswith(f".{path}")], path


def test_float32_masters_of_bfloat16_weights_are_split_like_the_weights():
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), _abstract(MODELS["decoder"]))
    state = jax.eval_shape(make_optimizer(optax.constant_schedule(1.0), clip_norm=1.0, weight_decay=0.0).init, params)
    of_params, of_masters = _specs(params), _specs(state.masters)
    assert of_masters == of_params


def test_every_rule_fits_some_array():
    paths = {path for make in MODELS.values() for path in _specs(_abstract(make))}
    for pattern, _ in RULES:
        assert any(re.search(rf"(^|\.){pattern}$", path) for path in paths), f"{pattern} fits nothing"


def test_an_axis_that_the_devices_do_not_divide_is_not_split_and_large_ones_are_named():
    tree = {"embed": jax.ShapeDtypeStruct((7, LARGE), jnp.float32), "other": jax.ShapeDtypeStruct((LARGE,), jnp.int32)}
    assert _specs(tree) == {"embed": PartitionSpec(None, FSDP), "other": PartitionSpec()}
    assert whole_arrays(tree, MESH) == ["other"]
    assert whole_arrays(tree, make_mesh(data=8)) == []


def test_rows_of_states_stay_on_their_devices():
    x = jax.device_put(np.ones((8, 3, 4), np.float32))
    with jax.set_mesh(MESH):
        kept = jax.jit(lambda x: keep_rows(x, last=TENSOR))(x)
        assert [shard.data.shape for shard in kept.addressable_shards] == [(2, 3, 2)] * 8
        odd = jax.jit(keep_rows)(x[:3])
    assert odd.sharding.is_fully_replicated
    np.testing.assert_array_equal(kept, x)
