"""Masks are those of the definitions, pair by pair, and a tree of tokens is as good as its branches one by one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh
from tiny_models import random_model

from igd_jax.core.sharding import DATA, FSDP
from igd_jax.models import attention, layers
from igd_jax.models.attention import KeyBlock, attend, attend_fused, attend_in_order
from igd_jax.models.visibility import (
    Causal,
    Dense,
    Segments,
    Tree,
    Visibility,
    both_sides,
    is_in_order,
    mask_of,
    newest_before,
    positions_of,
)

VALID = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
SEGMENTS = np.array([[1, 1, 2, 2, 2], [0, 3, 3, 7, 0], [1, 2, 1, 2, 2]])
# Nodes of three trees by their parents, in any order; -1 is a root, None padding.
PARENTS = [[-1, 0, 0, 2, -1, 4], [3, 3, -1, 2, None, 0], [1, 2, 3, 4, 5, -1]]


def tree_of(parents: list[list[int | None]]) -> Tree:
    """Number the nodes by a walk, depth first."""
    enter, leave = np.zeros((2, len(parents), len(parents[0])), np.int32)
    for row, above in enumerate(parents):
        clock = 0

        def walk(node: int, row: int = row, above: list = above) -> None:
            nonlocal clock
            enter[row, node], clock = clock, clock + 1
            for child, parent in enumerate(above):
                if parent == node:
                    walk(child)
            leave[row, node] = clock

        for node, parent in enumerate(above):
            if parent == -1:
                walk(node)
    return Tree(jnp.asarray(enter), jnp.asarray(leave))


def ancestors(above: list[int | None], node: int) -> set[int]:
    """The node and all above it."""
    parent = above[node]
    assert parent is not None
    return {node} | (set() if parent == -1 else ancestors(above, parent))


def check(visible: Visibility, sees) -> None:
    mask = np.asarray(mask_of(visible))
    assert mask.dtype == bool
    for row, query, key in np.ndindex(mask.shape):
        assert mask[row, query, key] == sees(row, query, key), (row, query, key)


def test_causal_is_what_is_real_and_not_later():
    check(Causal(jnp.asarray(VALID)), lambda row, i, j: VALID[row, j] and j <= i)


def test_segments_are_causal_inside_each_alone():
    ids = SEGMENTS
    check(
        Segments(jnp.asarray(ids, jnp.int32)),
        lambda row, i, j: ids[row, j] > 0 and ids[row, i] == ids[row, j] and j <= i,
    )


def test_in_a_tree_a_token_sees_the_path_to_it():
    tree = tree_of(PARENTS)
    is_real = np.array([[parent is not None for parent in row] for row in PARENTS])
    mask = np.asarray(mask_of(tree))
    for row, query, key in np.ndindex(mask.shape):
        if is_real[row, query]:
            expected = is_real[row, key] and key in ancestors(PARENTS[row], query)
            assert mask[row, query, key] == expected, (row, query, key)
    assert not mask.transpose(0, 2, 1)[~is_real].any()


def test_the_tree_of_the_docstring():
    mask = mask_of(Tree(jnp.asarray([[0, 1, 2, 3]]), jnp.asarray([[4, 3, 3, 4]])))
    assert np.asarray(mask[0]).astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]


def test_dense_is_the_mask_itself_and_both_sides_what_is_real():
    mask = np.random.default_rng(0).random((3, 5, 5)) < 0.5
    check(Dense(jnp.asarray(mask)), lambda row, i, j: mask[row, i, j])
    check(both_sides(jnp.asarray(VALID)), lambda row, i, j: VALID[row, j])


def test_positions_count_real_tokens():
    assert positions_of(jnp.asarray(VALID)).tolist() == [
        [0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]
    ]  # fmt: skip


def test_the_newest_real_token_before_each():
    assert newest_before(jnp.asarray(VALID)).tolist() == [
        [-1, -1, -1, 2, 3], [-1, 0, 1, 2, 2], [-1, 0, 1, 2, 3], [-1, -1, -1, -1, -1]
    ]  # fmt: skip


@nnx.jit
def run(decoder, tokens, positions, visible):
    return decoder(tokens, positions=positions, visible=visible)[0]


@pytest.mark.parametrize("parents", [[-1, 0, 0, 2, -1, 4], [3, 3, -1, 2, 0, 0], [1, 2, 3, 4, 5, -1]])
def test_a_tree_in_one_pass_equals_each_branch_alone(parents):
    decoder, tokens = random_model("decoder"), np.array([7, 3, 12, 30, 3, 41], np.int32)
    paths = [sorted(ancestors(parents, node), key=lambda n: len(ancestors(parents, n))) for node in range(6)]
    depth = jnp.asarray([[len(path) - 1 for path in paths]])
    whole = run(decoder, jnp.asarray(tokens[None]), depth, tree_of([parents]))
    for node, path in enumerate(paths):
        alone = jnp.ones((1, len(path)), bool)
        expected = run(decoder, jnp.asarray(tokens[path][None]), positions_of(alone), Causal(alone))
        np.testing.assert_allclose(whole[0, node], expected[0, -1], rtol=1e-5, atol=1e-5)


def test_segments_in_one_row_equal_rows_of_their_own():
    decoder, tokens = random_model("decoder"), jnp.asarray([[0, 7, 3, 12, 30, 3, 0]], jnp.int32)
    ids, positions = jnp.asarray([[0, 1, 1, 1, 2, 2, 0]]), jnp.asarray([[0, 0, 1, 2, 0, 1, 0]])
    packed = run(decoder, tokens, positions, Segments(ids))
    for piece in (slice(1, 4), slice(4, 6)):
        alone = jnp.ones((1, piece.stop - piece.start), bool)
        expected = run(decoder, tokens[:, piece], positions_of(alone), Causal(alone))
        np.testing.assert_allclose(packed[:, piece], expected, rtol=1e-5, atol=1e-5)


def test_other_attention_and_its_gradients_are_the_same_for_every_mask(monkeypatch):
    """After two tokens that some queries see, and for queries that see nothing but are not NaN."""
    random = np.random.default_rng(0)
    query, key, value, earlier = (
        jnp.asarray(random.normal(size=shape), jnp.float32)
        for shape in ((8, 6, 4, 8), (8, 2, 6, 8), (8, 2, 6, 8), (2, 8, 2, 2, 8))
    )
    real = jnp.asarray([[True] * 6, [True] * 4 + [False] * 2])
    ids = jnp.asarray([[1, 1, 2, 2, 2, 0], [0, 3, 3, 7, 0, 0]])
    masks = [
        mask_of(seen) for seen in (Causal(real), Segments(ids), tree_of([PARENTS[0], PARENTS[1]]), both_sides(real))
    ]
    mask, follows = jnp.concatenate(masks), jnp.asarray(random.random((8, 6, 2)) < 0.8)

    @partial(jax.jit, static_argnums=0)
    def run(attend_by, mask, *given):
        def mixed(query, key, value, earlier):
            blocks = [KeyBlock(*earlier, follows), KeyBlock(key, value, mask)]
            found = jnp.where(mask.any(axis=2)[..., None, None], attend_by(query, blocks), 0.0)
            return jnp.sum(jnp.sin(found)), found

        return jax.grad(mixed, argnums=(0, 1, 2, 3), has_aux=True)(*given)

    monkeypatch.setattr(attention, "_PART", 2)
    fused = partial(attend_fused, implementation="xla")
    monkeypatch.setattr(attention, "TURNS", 6)
    for other, seen in ((fused, mask), (attend_in_order, jnp.tril(mask))):
        ours, theirs = (run(attend_by, seen, query, key, value, earlier) for attend_by in (attend, other))
        for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "in_turns"), [("cpu", True), ("tpu", False)])
def test_rows_take_turns_on_the_platform_of_the_mesh_not_of_the_process(platform, in_turns):
    query, key = (jnp.ones((2, *shape, 4)) for shape in ((attention.TURNS, 1), (1, attention.TURNS)))
    block = KeyBlock(key, key, jnp.ones((2, attention.TURNS, attention.TURNS), bool))
    device = AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1, 1), (DATA, FSDP), abstract_device=device)):
        traced = jax.make_jaxpr(attend_in_order)(query, [block])
    assert ("scan" in str(traced)) == in_turns


def test_only_tokens_that_stand_in_order_are_said_to():
    mask = jnp.asarray(VALID)
    tree = tree_of(PARENTS)
    assert list(map(is_in_order, (Causal(mask), Segments(mask), tree, both_sides(mask)))) == [True, True, False, False]
    in_order = Tree(None, jnp.asarray([[4, 3, 3, 4]]))
    assert is_in_order(in_order)
    assert mask_of(in_order).tolist() == mask_of(Tree(jnp.arange(4)[None], in_order.leave)).tolist()


@pytest.mark.parametrize(
    ("implementation", "n_tokens", "is_fused"), [("cudnn", 64, 1), ("cudnn", 63, 0), ("xla", 64, 0)]
)
def test_whole_texts_are_left_to_the_kernel_and_steps_of_a_search_are_not(
    implementation, n_tokens, is_fused, monkeypatch
):
    used = []
    monkeypatch.setattr(layers, "attend_fused", lambda query, blocks, **given: used.append(given) or query)
    decoder, real = random_model("decoder"), jnp.ones((1, n_tokens), bool)
    decoder.attention = implementation
    jax.eval_shape(lambda: decoder(real.astype(jnp.int32), positions=positions_of(real), visible=Causal(real)))
    assert used == [{"implementation": implementation}] * is_fused


def test_the_kernel_is_given_lengths_that_it_takes_in_training(monkeypatch):
    """Those of cuDNN have to be even."""
    given = []

    def kernel(query, key, value, *, mask, implementation):
        given.append((query.shape[1], key.shape[1], value.shape[1], *mask.shape[2:]))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    query, key = jnp.ones((2, 71, 4, 8)), jnp.ones((2, 1, 71, 8))
    earlier = KeyBlock(key[:, :, :5], key[:, :, :5], jnp.ones((2, 71, 5), bool))
    mixed = attend_fused(query, [earlier, KeyBlock(key, key, jnp.ones((2, 71, 71), bool))], implementation="cudnn")
    assert mixed.shape == query.shape
    assert given == [(72, 80, 80, 72, 80)]
