"""Low-rank adapters on the linear maps of a decoder (LoRA, Hu et al., arXiv 2106.09685).

    y = x W + (alpha / r) (dropout(x) A) B

W is frozen; A and B are trained. B is zero at first, so a new adapter changes nothing. As in PEFT, each adapter drops
out numbers of its input in training.

Letters in addition to those of `core.types`: I in, O out, r rank.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from igd_jax.models.decoder import Decoder
from igd_jax.models.dropout import at_site, drop
from igd_jax.models.layers import Frozen, Linear
from igd_jax.models.products import product

TARGETS = {
    **dict.fromkeys(("q", "k", "v", "o"), "attention"),
    **dict.fromkeys(("gate", "up", "down"), "mlp"),
}
"""Linear maps that can have an adapter, and the part of a layer that holds each."""


@dataclass(frozen=True)
class LoRA:
    """Settings of the adapters.

    Attributes:
      rank: r, at least 1.
      alpha: factor of the product x A B, which is also divided by r.
      targets: names of `TARGETS`, separated by commas.
      dropout: probability of zeroing a number of x in training, from 0 to below 1.
    """

    rank: int
    alpha: float
    targets: str
    dropout: float = 0.0

    @property
    def names(self) -> list[str]:
        """The targets as a list."""
        return self.targets.split(",")


class LowRank(nnx.Module):
    """``(alpha / r) (x A) B`` in the dtype of x, for one linear map of all L layers; A and B are float32.

    A is uniform within ``1 / sqrt(I)`` as in PEFT (He et al., arXiv 1502.01852, with slope sqrt(5)), drawn separately
    for each layer.

    Args:
      n_layers, n_in, n_out: L, I and O.
      lora: settings of the adapters.
      site: number of the adapter within a layer, so that each drops out numbers of its own.
      rngs: source of random numbers.
    """

    def __init__(self, n_layers: int, n_in: int, n_out: int, *, lora: LoRA, site: int, rngs: nnx.Rngs):
        # Scaled after the draw, which involves no rounding, so that the numbers are the same on every device.
        drawn = jax.random.uniform(rngs.params(), (n_layers, n_in, lora.rank), jnp.float32, minval=-1.0, maxval=1.0)
        self.a: nnx.Param[Array] = nnx.Param(drawn * n_in**-0.5)
        self.b: nnx.Param[Array] = nnx.Param(jnp.zeros((n_layers, lora.rank, n_out), jnp.float32))
        self.scale, self.dropout, self.site = lora.alpha / lora.rank, lora.dropout, site

    def __call__(self, x: Float[Array, "N I"], keys: Key[Array, " N"] | None = None) -> Float[Array, "N O"]:
        """Apply the adapter of one layer, whose A [I r] and B [r O] were selected by the scan over layers.

        Args:
          x: tokens.
          keys: keys of the layer's dropout, one per token; None = no dropout.
        """
        x = drop(x, at_site(keys, self.site), rate=self.dropout)
        return product(product(x, self.a[...]), self.b[...]) * self.scale


def add_lora(decoder: Decoder, lora: LoRA, *, rngs: nnx.Rngs, trains_vocabulary: bool = False) -> None:
    """Freeze all weights of the decoder and add new adapters to its targets.

    Args:
      decoder: the decoder, which is changed in place.
      lora: settings of the adapters.
      rngs: source of random numbers.
      trains_vocabulary: whether embedding and head are trained as well, in float32; needed if there are tokens that the
        pretrained model does not know, whose rows are random and not reached by adapters.
    """
    for module in [module for _, module in nnx.iter_modules(decoder)]:
        for name, value in list(vars(module).items()):
            if not isinstance(value, nnx.Param):
                continue
            if trains_vocabulary and module is decoder and name in ("embed", "head"):
                setattr(module, name, nnx.Param(value[...].astype(jnp.float32)))
            else:
                setattr(module, name, Frozen(value[...]))
    decoder.dropout = lora.dropout
    for name in lora.names:
        linear: Linear = getattr(getattr(decoder.layers, TARGETS[name]), name)
        linear.adapter = LowRank(*linear.kernel.shape, lora=lora, site=list(TARGETS).index(name), rngs=rngs)
