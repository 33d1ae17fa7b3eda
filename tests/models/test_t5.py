"""Our T5 against tiny random models of the transformers library, through the folders that it saves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from letter_files import save_golden_t5
from random_t5 import SIZES, START, VERSIONS, save_random
from tiny_models import random_model

from igd_jax.core.errors import InputError
from igd_jax.core.types import TextBatch
from igd_jax.models.backbone import KVCache, Prefix
from igd_jax.models.layers import REMAT
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import NAMED, T5Config, from_hf
from igd_jax.models.t5_layers import bucket_of
from igd_jax.models.t5_weights import load_t5
from igd_jax.models.visibility import Causal, Dense, both_sides


@nnx.jit
def run(model: T5, ids, valid, written):
    """Hidden states of encoder and decoder as a translation has them: positions in order, a causal decoder; logits."""
    positions, places = (jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape) for x in (ids, written))
    encoded = model.encode(ids, positions=positions, visible=both_sides(valid))
    hidden, _ = model.decode(
        written, model.memory_of(encoded, valid), positions=places, visible=Causal(jnp.ones(written.shape, bool))
    )
    return encoded, hidden, model.logits(hidden)


@pytest.mark.parametrize("version", VERSIONS)
def test_hidden_states_and_logits_are_those_of_transformers(version, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = save_random(version, tmp_path)
    rng = np.random.default_rng(0)
    ids, written = rng.integers(0, 60, (2, 45)), rng.integers(0, 60, (2, 30))
    valid = np.arange(45) >= np.array([[0], [7]])
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(valid.astype(np.int64)),
            decoder_input_ids=torch.from_numpy(written),
            output_hidden_states=True,
        )
    model = load_t5(tmp_path)
    encoded, decoded, logits = run(
        model, jnp.asarray(ids, jnp.int32), jnp.asarray(valid), jnp.asarray(written, jnp.int32)
    )
    np.testing.assert_allclose(encoded[valid], expected.encoder_last_hidden_state.numpy()[valid], atol=3e-5)
    np.testing.assert_allclose(decoded, expected.decoder_hidden_states[-1].numpy(), atol=3e-5)
    np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_every_policy_of_remat_gives_the_value_and_gradient_of_none():
    batch = text_batch([[5, 6, 7, 8], [9, 10]], [[11, 12, 1], [13, 1]], shared=[3])
    found = []
    for remat in REMAT:
        model = random_model("T5 1.0")
        for stack in (model.encoder, model.decoder):
            assert stack.remat == "none"
            stack.remat = remat
        found.append(nnx.jit(nnx.value_and_grad(lambda model: jnp.square(model.target_hidden(batch)).mean()))(model))
    for one in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, found[0])


prefill = nnx.jit(lambda model, batch: model.prefill(batch))


@nnx.jit
def teach(model: T5, batch: TextBatch) -> jax.Array:
    return model.logits(model.target_hidden(batch))


@nnx.jit
def write(model: T5, prefix: Prefix, store: KVCache, token, t):
    """Feed the token that stands at place t of the target."""
    seen = jnp.broadcast_to(jnp.arange(store.n_slots) < t, (*token.shape, store.n_slots))
    hidden, new = model.extend(
        prefix,
        token,
        positions=prefix.length[:, None] + t,
        visible=Causal(jnp.ones(token.shape, bool)),
        past=[(store, seen)],
    )
    return model.logits(hidden[:, 0]), store.write(new, t)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_t5_writes_is_what_that_of_transformers_writes(version, tmp_path):
    """Prompts of several lengths with a part that all share, all tokens of the targets at once and one by one."""
    torch = pytest.importorskip("torch")
    theirs = save_random(version, tmp_path)
    rng = np.random.default_rng(1)
    shared, prompts, targets = (
        [rng.integers(5, 60, n).tolist() for n in lengths] for lengths in ((6,), (30, 1, 12), (9, 25, 4))
    )
    batch = text_batch(prompts, targets, shared=shared[0])
    whole = [shared[0] + prompt for prompt in prompts]
    ids, labels = (
        torch.tensor([row + [fill] * (max(map(len, rows)) - len(row)) for row in rows])
        for rows, fill in ((whole, 0), (targets, -100))
    )
    is_read = torch.tensor([[1] * len(row) + [0] * (ids.shape[1] - len(row)) for row in whole])
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=is_read, labels=labels).logits.numpy()
    model, mask = load_t5(tmp_path), np.asarray(batch.target_mask)
    assert model.config.start_id == START
    np.testing.assert_allclose(np.asarray(teach(model, batch))[mask], expected[mask], rtol=1e-5, atol=1e-5)
    prefix = prefill(model, batch)
    logits, store = [model.logits(prefix.hidden)], prefix.kv.empty(batch.target.shape[1])
    for t in range(batch.target.shape[1] - 1):
        found, store = write(model, prefix, store, batch.target[:, t : t + 1], jnp.int32(t))
        logits.append(found)
    np.testing.assert_allclose(np.stack(logits, axis=1)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_published_logits_and_losses_of_letter_tiger(shared, tmp_path):
    golden = shared / "golden" / "letter"
    save_golden_t5(tmp_path)
    with np.load(golden / "t5_batch.npz", allow_pickle=False) as arrays:
        arrays = dict(arrays)
    prompts = [row[mask > 0].tolist() for row, mask in zip(arrays["input_ids"], arrays["attention_mask"], strict=True)]
    model = load_t5(tmp_path)
    logits = {}
    for kind in ("labels", "labels_ragged"):
        # Labels that do not count are read as padding, id 0, which later tokens see.
        batch = text_batch(prompts, np.maximum(arrays[kind], 0).tolist())
        logits[kind] = np.asarray(teach(model, batch), np.float64)
        for temperature in (1.0, 0.7, 2.5):
            scaled, mask = logits[kind] / temperature, arrays[kind] >= 0
            own = np.take_along_axis(scaled, np.asarray(batch.target)[..., None], axis=-1)[..., 0]
            nll = np.log(np.exp(scaled).sum(axis=-1)) - own
            name = f"{'' if kind == 'labels' else 'ragged_'}loss_temp{temperature}_f32"
            assert nll[mask].mean() == pytest.approx(float(arrays[name]), rel=2e-6)
    np.testing.assert_allclose(logits["labels"], arrays["logits_f32"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_encoder", [True, False])
def test_buckets_are_those_of_transformers(is_encoder):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = np.arange(-600, 601)
    for n, far in ((32, 128), (8, 20), (16, 64), (4, 20), (5, 20), (6, 128), (7, 9)):
        config = from_hf({**SIZES, "model_type": "t5", "relative_attention_num_buckets": n,
                          "relative_attention_max_distance": far})  # fmt: skip
        theirs = modeling.T5Attention._relative_position_bucket(
            torch.from_numpy(distance), bidirectional=is_encoder, num_buckets=n, max_distance=far
        )
        np.testing.assert_array_equal(bucket_of(jnp.asarray(distance), config, both_sides=is_encoder), theirs.numpy())


@pytest.mark.parametrize(("name", "n_weights"), [("t5-small", 60_506_624), ("t5-base", 222_903_552)])
def test_named_sizes_have_their_public_numbers_of_weights(name, n_weights):
    state = nnx.state(nnx.eval_shape(lambda: T5(NAMED[name], rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == n_weights


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_first_weights_spread_as_those_of_transformers(version, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": 300, "d_model": 64, "d_ff": 192, "num_heads": 6, "d_kv": 16}
    transformers.T5Model(transformers.T5Config(**sizes, **VERSIONS[version])).save_pretrained(tmp_path)
    theirs = load_t5(tmp_path)
    ours = nnx.jit(lambda: T5(theirs.config, rngs=nnx.Rngs(0)))()
    pairs = zip(nnx.to_flat_state(nnx.state(ours)), nnx.to_flat_state(nnx.state(theirs)), strict=True)
    for (path, mine), (same, other) in pairs:
        assert path == same
        spread, expected = (float(jnp.sqrt(jnp.square(x[...]).mean())) for x in (mine, other))
        assert spread == pytest.approx(expected, rel=5 / mine.size**0.5), path  # five standard errors


@pytest.fixture(scope="module")
def model() -> T5:
    config = T5Config(
        vocab_size=20, hidden_size=16, mlp_size=24, num_layers=2, num_decoder_layers=2, num_heads=2, head_dim=8,
        num_buckets=8, max_distance=20, eps=1e-6, gated=True,
    )  # fmt: skip
    graph, state = nnx.split(nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0))))
    random = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), state))


IDS = jnp.asarray([[3, 14, 15, 9, 2]], jnp.int32)


def test_a_token_changes_only_what_may_look_at_it(model):
    mask = jnp.ones((1, 5, 5), bool).at[0, :2, 3].set(False)
    place = jnp.arange(5)[None]
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, visible=Dense(mask)))
    before, after = encode(IDS, place), encode(IDS.at[0, 3].set(7), place)
    # Token 0 and 1 may not look at token 3, but at others that do.
    assert (np.abs(after - before).max(axis=(0, 2)) > 1e-4).all()
    hidden = jnp.ones((1, 5, 5), bool).at[0, :, 3].set(jnp.arange(5) == 3)
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, visible=Dense(hidden)))
    changed = np.abs(encode(IDS.at[0, 3].set(7), place) - encode(IDS, place)).max(axis=(0, 2)) > 1e-4
    assert changed.tolist() == [False, False, False, True, False]


def test_only_differences_of_positions_count_and_shared_ones_make_a_set(model):
    mask = jnp.ones((1, 5, 5), bool)
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, visible=Dense(mask)))
    place = jnp.asarray([[0, 1, 1, 1, 2]])
    order = jnp.asarray([0, 3, 1, 2, 4])
    np.testing.assert_allclose(encode(IDS, place), encode(IDS, place + 40), atol=1e-5)
    np.testing.assert_allclose(encode(IDS, place)[:, order], encode(IDS[:, order], place), atol=1e-4)
    assert np.abs(encode(IDS, place) - encode(IDS, jnp.arange(5)[None])).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "the model is of type 'qwen2'; expected t5"),
        ({"d_kv": None, "num_heads": 0}, "num_heads is 0, expected a positive int .*; d_kv is missing; correct it \\("),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648, expected a positive int of at most 16,777,216"),
        ({"d_ff": 2**63}, "d_ff is 9223372036854775808, expected a positive int"),
        ({"d_model": 8.5}, "d_model is 8.5, expected a positive int"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan, expected a positive float"),
        ({"num_decoder_layers": -1}, "num_decoder_layers is -1, expected a positive int"),
        ({"decoder_start_token_id": 10**6}, "decoder_start_token_id is 1000000, expected an id of the vocabulary"),
        ({"decoder_start_token_id": True}, "decoder_start_token_id is True, expected an id of the vocabulary"),
        ({"decoder_start_token_id": "0"}, "decoder_start_token_id is '0', expected an id of the vocabulary"),
        ({"relative_attention_num_buckets": 1}, "num_buckets is not from 4 to twice relative_attention_max_distance"),
        ({"dense_act_fn": "gelu_new"}, "dense_act_fn is 'gelu_new', only 'relu' is supported"),
        ({"feed_forward_proj": "gated-gelu", "is_gated_act": False}, "is_gated_act is False, only True is supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is not understood"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', expected true or false"),
        ({"scale_decoder_outputs": "true"}, "scale_decoder_outputs is 'true', expected true or false"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False, only True is supported"),
        ({"feed_forward_proj": ["relu"]}, r"feed_forward_proj is \['relu'\], expected one of relu, gated-gelu"),
    ],
)
def test_a_config_that_is_not_understood_is_bad_input(changes, message):
    from_hf({**SIZES, "model_type": "t5"})
    config = {**SIZES, "model_type": "t5"} | changes
    with pytest.raises(InputError, match=message):
        from_hf(json.loads(json.dumps(config)))
