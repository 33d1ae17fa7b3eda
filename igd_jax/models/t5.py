"""T5 without a vocabulary head: an encoder and a decoder with relative position biases (arXiv 1910.10683).

    softmax(q k' + bias[bucket(position of key - position of query)]) v       no scale by the width of a head

Version 1.0 has a ReLU between two maps, version 1.1 a gated GELU. Positions and attention are arguments, so that a
method can share positions and hide tokens from one another.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Bool, Float, Int
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file, read_json, write_json
from igd_jax.models import hf_weights
from igd_jax.models.layers import Linear, RMSNorm
from igd_jax.models.t5_config import T5Config, from_hf, to_hf


def linear(n_in: int, n_out: int, *, rngs: nnx.Rngs, scale: float = 1.0) -> Linear:
    """A map without biases, at first normal(`scale` / sqrt(n_in))."""
    made = Linear(n_in, n_out, rngs=rngs, param_dtype=jnp.float32)
    made.kernel[...] = scale * n_in**-0.5 * jax.random.normal(rngs.params(), (n_in, n_out))
    return made


class FeedForward(nnx.Module):
    """``relu(x W_gate) W_down``, or ``(gelu(x W_gate) * x W_up) W_down`` (tanh approximation, as published)."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.gate = linear(config.hidden_size, config.mlp_size, rngs=rngs)
        self.up = linear(config.hidden_size, config.mlp_size, rngs=rngs) if config.gated else None
        self.down = linear(config.mlp_size, config.hidden_size, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if self.up is None:
            return self.down(jax.nn.relu(self.gate(x)))
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


class Attention(nnx.Module):
    """Attention of T tokens to S, with what is added to the logits from outside."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        width, self.head_dim = config.num_heads * config.head_dim, config.head_dim
        # Smaller queries stand in for the scale by the width of a head.
        self.q = linear(config.hidden_size, width, rngs=rngs, scale=config.head_dim**-0.5)
        self.k, self.v = (linear(config.hidden_size, width, rngs=rngs) for _ in range(2))
        self.o = linear(width, config.hidden_size, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B T D"], memory: Float[Array, "B S D"], bias: Float[Array, "B Q T S"]
    ) -> Float[Array, "B T D"]:
        query, key, value = (
            project(y).reshape(*y.shape[:2], -1, self.head_dim)
            for project, y in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        logits = jnp.einsum("BTQH,BSQH->BQTS", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(x.dtype)
        return self.o(jnp.einsum("BQTS,BSQH->BTQH", weights, value).reshape(*x.shape[:2], -1))


class Layer(nnx.Module):
    """Attention, in the decoder attention to the encoder, and feed-forward, each behind a norm and added."""

    def __init__(self, config: T5Config, *, crosses: bool, rngs: nnx.Rngs):
        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, eps=config.eps, param_dtype=jnp.float32)

        self.attention_norm, self.attention = norm(), Attention(config, rngs=rngs)
        self.cross_norm = norm() if crosses else None
        self.cross = Attention(config, rngs=rngs) if crosses else None
        self.mlp_norm, self.mlp = norm(), FeedForward(config, rngs=rngs)

    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        bias: Float[Array, "B Q T T"],
        encoded: tuple[Float[Array, "B S D"], Float[Array, "B Q T S"]] | None,
    ) -> Float[Array, "B T D"]:
        x = self.attention_norm(hidden)
        hidden = hidden + self.attention(x, x, bias)
        if self.cross is not None and self.cross_norm is not None and encoded is not None:
            hidden = hidden + self.cross(self.cross_norm(hidden), *encoded)
        return hidden + self.mlp(self.mlp_norm(hidden))


class Stack(nnx.Module):
    """Layers under one table of position biases, and a norm after them."""

    def __init__(self, config: T5Config, *, is_decoder: bool, rngs: nnx.Rngs):
        n_layers = config.num_decoder_layers if is_decoder else config.num_layers
        self.config, self.is_decoder = config, is_decoder
        table = jax.random.normal(rngs.params(), (config.num_buckets, config.num_heads))
        self.bias = nnx.Param(config.hidden_size**-0.5 * table)
        self.layers = nnx.List(Layer(config, crosses=is_decoder, rngs=rngs) for _ in range(n_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.eps, param_dtype=jnp.float32)

    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        *,
        positions: Int[Array, "B T"],
        bias: Float[Array, "B T T"],
        encoded: tuple[Float[Array, "B S D"], Bool[Array, "B S"]] | None = None,
    ) -> Float[Array, "B T D"]:
        """Hidden states after the final norm; `bias` is for all heads, and `encoded` comes with its mask."""
        distance = positions[:, None] - positions[:, :, None]
        bucket = bucket_of(distance, self.config, both_sides=not self.is_decoder)
        of_heads = self.bias[...][bucket].transpose(0, 3, 1, 2)
        own = of_heads + jnp.broadcast_to(bias[:, None], of_heads.shape)
        cross = None
        if encoded is not None:
            memory, mask = encoded
            cross = memory, jnp.broadcast_to(hide(~mask)[:, None, None], (*of_heads.shape[:3], mask.shape[1]))
        for layer in self.layers:
            hidden = layer(hidden, own, cross)
        return self.norm(hidden)


class T5(nnx.Module):
    """Embedding, encoder and decoder, in float32.

    Args:
      config: sizes and switches.
      rngs: source of the initial weights, those of the published code as in transformers (``initializer_factor`` 1):
        embedding normal(1), maps by their inputs (`linear`), position biases normal(1 / sqrt(hidden)), norms one.
    """

    dtype = jnp.dtype(jnp.float32)

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = nnx.Param(jax.random.normal(rngs.params(), (config.vocab_size, config.hidden_size)))
        self.encoder = Stack(config, is_decoder=False, rngs=rngs)
        self.decoder = Stack(config, is_decoder=True, rngs=rngs)

    def encode(
        self,
        inputs: Int[Array, "B S"] | Float[Array, "B S D"],
        *,
        positions: Int[Array, "B S"],
        mask: Bool[Array, "B S S"],
    ) -> Float[Array, "B S D"]:
        """Hidden states of the encoder after its final norm.

        Args:
          inputs: token ids, or embeddings in their place.
          positions: whose differences choose the biases.
          mask: [b, query, key], True where a token may look.
        """
        hidden = self.embed[...][inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs
        return self.encoder(hidden, positions=positions, bias=hide(~mask))

    def decode(
        self,
        inputs: Int[Array, "B T"] | Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        *,
        positions: Int[Array, "B T"],
        bias: Float[Array, "B T T"],
        encoded_mask: Bool[Array, "B S"],
    ) -> Float[Array, "B T D"]:
        """Hidden states of the decoder after its final norm, without the scale that version 1.0 has before its head.

        Args:
          inputs: token ids, or embeddings in their place.
          positions: as in `encode`.
          bias: added to the logits [b, query, key] among the inputs; `hide` makes one of a mask.
          encoded_mask: tokens of the encoder that may be looked at.
        """
        hidden = self.embed[...][inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs
        return self.decoder(hidden, positions=positions, bias=bias, encoded=(encoded, encoded_mask))


def hide(hidden: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What to add to logits so that the marked ones get no attention: the least finite number, else 0."""
    return jnp.where(hidden, jnp.finfo(jnp.float32).min, jnp.float32(0))


def bucket_of(distance: Int[Array, "*shape"], config: T5Config, *, both_sides: bool) -> Int[Array, "*shape"]:
    """The bucket of each distance, position of key - position of query.

    Half of the buckets are for one distance each, the rest grow with its logarithm up to `max_distance`. An encoder
    has half of all buckets for keys after the query; a decoder sees none there.
    """
    n = config.num_buckets // 2 if both_sides else config.num_buckets
    exact, far = n // 2, np.maximum(np.arange(config.max_distance + 1), 1).astype(np.float32)
    grown = exact + np.log(far / exact) / np.log(config.max_distance / exact) * (n - exact)
    table = np.where(far < exact, np.arange(len(far)), np.minimum(grown.astype(np.int32), n - 1)).astype(np.int32)
    back = jnp.abs(distance) if both_sides else jnp.maximum(-distance, 0)
    bucket = jnp.asarray(table)[jnp.minimum(back, config.max_distance)]
    return jnp.where(distance > 0, bucket + n, bucket) if both_sides else bucket


def load_t5(folder: str | Path) -> T5:
    """Build a `T5` with the weights of a Hugging Face folder: ``config.json`` and safetensors.

    Tensors beside those of the model, such as a vocabulary head, are not read.

    Raises:
      InputError: no usable config or weights, or tensors that are missing (-) or of another shape (!), in one message.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(f"{path} holds no config.json; expected the Hugging Face folder of a T5 model")
    config = from_hf(read_json(path / "config.json"))
    graph, state = nnx.split(nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0))))
    shapes = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    arrays, problems = {}, []
    with ExitStack() as stack:
        tensors = hf_weights.open_tensors(path, stack)
        for place, like in shapes.items():
            name, transposed = _name(place, gated=config.gated)
            if name not in tensors:
                problems.append(f"- {name}")
                continue
            found, wanted = tensors[name].get_tensor(name), like.shape[::-1] if transposed else like.shape
            if found.shape != wanted:
                problems.append(f"! {name} is {found.shape}, expected {wanted}")
            arrays[place] = jnp.asarray((found.T if transposed else found).astype(np.float32))
    if problems:
        raise InputError(
            f"the weights in {folder} do not fit its config.json (- missing, ! unusable):\n  "
            + "\n  ".join(problems)
            + "\ngive the folder whose two parts belong together"
        )
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(arrays))
    return nnx.merge(graph, state)


def save_t5(model: T5, folder: Path) -> None:
    """Write what `load_t5` and transformers' T5Model read: ``model.safetensors`` (float32), then ``config.json``.

    Each is replaced as a whole; other files of the folder, such as its tokenizer, stay as they are.
    """
    tensors = {}
    for place, array in traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model))).items():
        name, transposed = _name(place, gated=model.config.gated)
        tensors[name] = np.ascontiguousarray(np.asarray(array).T if transposed else array)
    with atomic_file(folder / "model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})  # transformers asks for the word
    write_json(folder / "config.json", to_hf(model.config))


def _name(place: tuple[Any, ...], *, gated: bool) -> tuple[str, bool]:
    """Hugging Face's name of one of our variables, and whether it is stored transposed."""
    if place == ("embed",):
        return "shared.weight", False
    side, part, *rest = place
    if part == "norm":
        return f"{side}.final_layer_norm.weight", False
    if part == "bias":
        return f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", False
    layer, module, *last = rest
    kind = module.removesuffix("_norm")
    number = {"attention": 0, "cross": 1, "mlp": 2 if side == "decoder" else 1}[kind]
    block = f"{side}.block.{layer}.layer.{number}"
    if module.endswith("_norm"):
        return f"{block}.layer_norm.weight", False
    inside = {"attention": "SelfAttention", "cross": "EncDecAttention", "mlp": "DenseReluDense"}[kind]
    theirs = {"gate": "wi_0" if gated else "wi", "up": "wi_1", "down": "wo"}.get(last[0], last[0])
    return f"{block}.{inside}.{theirs}.weight", True
