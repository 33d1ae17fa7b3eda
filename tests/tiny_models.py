"""Small decoders and T5s with random values in every weight."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from igd_jax.models.config import ModelConfig
from igd_jax.models.decoder import Decoder
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import T5Config

VOCAB = 50
DECODER = ModelConfig(
    vocab_size=VOCAB, hidden_size=32, mlp_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
    rope_theta=1e4, rms_norm_eps=1e-6, tie_embeddings=True, qkv_bias=True, qk_norm=True, max_positions=64,
)  # fmt: skip
T5_1_0 = T5Config(
    vocab_size=VOCAB, hidden_size=32, mlp_size=48, num_layers=2, num_decoder_layers=3, num_heads=4, head_dim=8,
    num_buckets=8, max_distance=20, eps=1e-6, gated=False, start_id=3,
)  # fmt: skip
T5_1_1 = T5Config(**vars(T5_1_0) | {"gated": True, "tie_embeddings": False, "scale_logits": False})
CONFIGS = {"decoder": DECODER, "T5 1.0": T5_1_0, "T5 1.1": T5_1_1}


def random_model(kind: str, *, spread: float = 0.3) -> Decoder | T5:
    """A model of `CONFIGS` with random values in every weight, norms and biases too."""
    config = CONFIGS[kind]
    make = T5 if isinstance(config, T5Config) else Decoder
    graph, abstract = nnx.split(nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0))))
    random = np.random.default_rng(0)
    return nnx.merge(
        graph, jax.tree.map(lambda x: jnp.asarray(spread * random.normal(size=x.shape), x.dtype), abstract)
    )
