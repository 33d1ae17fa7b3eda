"""Low-rank adapters on the linear maps of a decoder (LoRA, Hu et al., arXiv 2106.09685).

    y = x W + (alpha / r) (x A) B

W is frozen; A and B are trained. B is zero at first, so a new adapter changes nothing. There is no dropout before A,
where the authors of IGD, BIGRec and SETRec have some: a train step has no random draws.

Letters beside those of `core.types`: I in, O out, r rank.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import Frozen, Linear

TARGETS = {
    **dict.fromkeys(("q", "k", "v", "o"), "attention"),
    **dict.fromkeys(("gate", "up", "down"), "mlp"),
}
"""Linear maps that can have an adapter, each with the part of a layer that holds it."""


@dataclass(frozen=True)
class LoRA:
    """Which maps are adapted, and how much.

    Attributes:
      rank: r, 1 or more.
      alpha: factor of the adapter's product, before it is divided by r.
      targets: names of `TARGETS`, separated by commas.
    """

    rank: int
    alpha: float
    targets: str

    @property
    def names(self) -> list[str]:
        """The targets, one by one."""
        return self.targets.split(",")


class LowRank(nnx.Module):
    """``(alpha / r) (x A) B`` in the dtype of x, for one linear map of all L layers; A and B are float32.

    A is uniform within ``1 / sqrt(I)``, as PEFT has it (He et al., arXiv 1502.01852, with slope sqrt(5)), and of its
    own in each layer.
    """

    def __init__(self, n_layers: int, n_in: int, n_out: int, *, rank: int, alpha: float, rngs: nnx.Rngs):
        # Scaled at the end, so that every device has the same numbers: the draw itself has none to round.
        drawn = jax.random.uniform(rngs.params(), (n_layers, n_in, rank), jnp.float32, minval=-1.0, maxval=1.0)
        self.a: nnx.Param[Array] = nnx.Param(drawn * n_in**-0.5)
        self.b: nnx.Param[Array] = nnx.Param(jnp.zeros((n_layers, rank, n_out), jnp.float32))
        self.scale = alpha / rank

    def __call__(self, x: Float[Array, "N I"]) -> Float[Array, "N O"]:
        """The adapter of one layer, whose A [I r] and B [r O] the scan over layers has picked."""
        return x @ self.a[...].astype(x.dtype) @ self.b[...].astype(x.dtype) * self.scale


def add_lora(decoder: Decoder, lora: LoRA, *, rngs: nnx.Rngs, trains_vocabulary: bool = False) -> None:
    """Freeze all weights of the decoder and put new adapters beside its targets.

    Args:
      trains_vocabulary: embedding and head are trained as well, in float32. Tokens that the pretrained model never saw
        have random rows in them, which no adapter reaches.
    """
    for module in [module for _, module in nnx.iter_modules(decoder)]:
        for name, value in list(vars(module).items()):
            if not isinstance(value, nnx.Param):
                continue
            if trains_vocabulary and module is decoder and name in ("embed", "head"):
                setattr(module, name, nnx.Param(value[...].astype(jnp.float32)))
            else:
                setattr(module, name, Frozen(value[...]))
    for name in lora.names:
        linear: Linear = getattr(getattr(decoder.layers, TARGETS[name]), name)
        linear.adapter = LowRank(*linear.kernel.shape, rank=lora.rank, alpha=lora.alpha, rngs=rngs)
