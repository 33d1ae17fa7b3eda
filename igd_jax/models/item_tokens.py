"""Tokens of items for SETRec: one from behaviour, and several from content that an autoencoder compresses.

    t0 = W h + b                    one collaborative token, from the item's vector h
    t1, ..., tN = encoder(x)        semantic tokens, from the item's features x, which decoder(t1, ..., tN) rebuilds

Either kind may be absent, but not both. Letters in addition to those of `core.types`: I items, Z tokens per item.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from igd_jax.models.layers import Frozen

AUTOENCODER = (512, 256, 128)
"""Published widths of the layers between the features and the semantic tokens."""


class MLP(nnx.Module):
    """Linear maps with ReLU between them but not after the last; weights are Xavier normal, biases zero."""

    def __init__(self, widths: tuple[int, ...], *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.layers = nnx.List(nnx.Linear(a, b, kernel_init=init, rngs=rngs) for a, b in pairwise(widths))

    def __call__(self, x: Float[Array, "*items I"]) -> Float[Array, "*items O"]:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def torch_linear(n_in: int, n_out: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear map initialised as PyTorch does by default: weights and biases uniform within +-1 / sqrt(n_in)."""

    def init(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -(n_in**-0.5), n_in**-0.5)

    return nnx.Linear(n_in, n_out, kernel_init=init, bias_init=init, rngs=rngs)


class ItemTokens(nnx.Module):
    """The Z tokens of every item, in float32.

    Args:
      vectors: vectors of the items, for the collaborative token; None if there is no such token.
      features: features of the items, for the semantic tokens; None if there are no such tokens.
      trains_vectors: whether the vectors are an embedding table to be trained; otherwise they are frozen.
      n_semantic: N; 0 without features.
      width: width of a token.
      rngs: source of random numbers.
      hidden: widths of the autoencoder.
      features_from: fingerprint of the origin of the features; empty = the features themselves count.
    """

    def __init__(
        self,
        vectors: Float[Array, "I C"] | None,
        features: Float[Array, "I W"] | None,
        *,
        trains_vectors: bool,
        n_semantic: int,
        width: int,
        rngs: nnx.Rngs,
        hidden: tuple[int, ...] = AUTOENCODER,
        features_from: str = "",
    ):
        (given, *_) = [array for array in (vectors, features) if array is not None]
        self.width, self.n_items, self.n_tokens = width, len(given), (vectors is not None) + n_semantic
        held = nnx.Param if trains_vectors else Frozen
        self.vectors = None if vectors is None else held(vectors)
        self.project = None if vectors is None else torch_linear(vectors.shape[1], width, rngs=rngs)
        widths = () if features is None else (features.shape[1], *hidden, n_semantic * width)
        self.features = None if features is None else Frozen(features, made_from=features_from)
        self.encoder = MLP(widths, rngs=rngs) if widths else None
        self.decoder = MLP(widths[::-1], rngs=rngs) if widths else None

    def __call__(self, items: Int[Array, "*items"]) -> Float[Array, "*items Z D"]:
        """Tokens of the given items, the collaborative one first."""
        tokens = []
        if self.vectors is not None and self.project is not None:
            tokens.append(self.project(self.vectors[...][items])[..., None, :])
        if self.features is not None and self.encoder is not None:
            encoded = self.encoder(self.features[...][items])
            tokens.append(encoded.reshape(*items.shape, -1, self.width))
        return jnp.concatenate(tokens, axis=-2)

    def rebuild_error(self, items: Int[Array, "*items"], tokens: Float[Array, "*items Z D"]) -> Float[Array, "*items"]:
        """Mean squared error of each item's features, rebuilt from its tokens; 0 without features."""
        if self.features is None or self.decoder is None:
            return jnp.zeros(items.shape, jnp.float32)
        semantic = tokens if self.vectors is None else tokens[..., 1:, :]
        rebuilt = self.decoder(semantic.reshape(*items.shape, -1))
        return jnp.square(rebuilt - self.features[...][items]).mean(axis=-1)
