"""Sizes and switches of a decoder-only language model, and those of well-known ones by name."""

from dataclasses import dataclass
from functools import partial

from igd_jax.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Stretching of rotary wavelengths in Llama 3.1 and later (``rope_type: llama3``).

    Attributes:
      factor: stretch of the longest wavelengths.
      low_freq_factor: wavelengths above ``original_max_position / low_freq_factor`` are stretched fully.
      high_freq_factor: wavelengths below ``original_max_position / high_freq_factor`` are unchanged.
      original_max_position: context length before stretching, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the computation of a decoder of any family.

    Attributes:
      vocab_size: number of rows of the embedding.
      hidden_size: width of the residual stream.
      mlp_size: inner width of the gated MLP.
      num_layers: number of transformer blocks.
      num_heads: number of query heads.
      num_kv_heads: number of key-value heads; divides `num_heads`.
      head_dim: width of one head; even.
      rope_theta: rotary base.
      rope_scaling: stretching of rotary wavelengths, or None.
      rms_norm_eps: epsilon added to the mean square in every norm.
      tie_embeddings: whether the vocabulary head is the embedding.
      qkv_bias: whether query, key and value have biases (Qwen2).
      qk_norm: whether each query and key head has an RMS norm (Qwen3).
      max_positions: longest context that the model was made for, in tokens.

    Raises:
      InputError: the heads do not divide into groups, or the head width is odd.
    """

    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rope_scaling: Llama3Scaling | None = None
    rms_norm_eps: float
    tie_embeddings: bool
    qkv_bias: bool = False
    qk_norm: bool = False
    max_positions: int

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads or self.head_dim % 2 or not self.head_dim:
            raise InputError(
                f"the model has {self.num_heads} query heads, {self.num_kv_heads} key-value heads and head width "
                f"{self.head_dim}; expected whole groups of query heads and an even width; correct the model's config"
            )


_QWEN2 = partial(
    ModelConfig, vocab_size=151_936, head_dim=128, rope_theta=1e6, rms_norm_eps=1e-6, qkv_bias=True, tie_embeddings=True
)
_QWEN3 = partial(
    ModelConfig,
    vocab_size=151_936,
    head_dim=128,
    num_kv_heads=8,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    qk_norm=True,
    tie_embeddings=True,
    max_positions=40_960,
)
_LLAMA3 = partial(ModelConfig, vocab_size=128_256, num_kv_heads=8, rope_theta=5e5, rms_norm_eps=1e-5)
_LLAMA32 = partial(
    _LLAMA3,
    rope_scaling=Llama3Scaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192),
    tie_embeddings=True,
    max_positions=131_072,
)

NAMED: dict[str, ModelConfig] = {
    "pico": _QWEN2(
        vocab_size=1024, hidden_size=64, mlp_size=192, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
        max_positions=2048,
    ),
    "nano": _QWEN2(
        vocab_size=4096, hidden_size=128, mlp_size=384, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
        max_positions=2048,
    ),
    "mini": _QWEN2(
        vocab_size=8192, hidden_size=256, mlp_size=1024, num_layers=8, num_heads=4, num_kv_heads=2, head_dim=64,
        max_positions=2048,
    ),
    "qwen2.5-0.5b": _QWEN2(
        hidden_size=896, mlp_size=4864, num_layers=24, num_heads=14, num_kv_heads=2, head_dim=64, max_positions=32_768
    ),
    "qwen2.5-1.5b": _QWEN2(
        hidden_size=1536, mlp_size=8960, num_layers=28, num_heads=12, num_kv_heads=2, max_positions=131_072
    ),
    "qwen2.5-3b": _QWEN2(
        hidden_size=2048, mlp_size=11_008, num_layers=36, num_heads=16, num_kv_heads=2, max_positions=32_768
    ),
    "qwen2.5-7b": _QWEN2(
        vocab_size=152_064, hidden_size=3584, mlp_size=18_944, num_layers=28, num_heads=28, num_kv_heads=4,
        tie_embeddings=False, max_positions=131_072,
    ),
    "qwen3-0.6b": _QWEN3(hidden_size=1024, mlp_size=3072, num_layers=28, num_heads=16),
    "qwen3-1.7b": _QWEN3(hidden_size=2048, mlp_size=6144, num_layers=28, num_heads=16),
    "qwen3-4b": _QWEN3(hidden_size=2560, mlp_size=9728, num_layers=36, num_heads=32),
    "qwen3-8b": _QWEN3(hidden_size=4096, mlp_size=12_288, num_layers=36, num_heads=32, tie_embeddings=False),
    "llama3.2-1b": _LLAMA32(hidden_size=2048, mlp_size=8192, num_layers=16, num_heads=32, head_dim=64),
    "llama3.2-3b": _LLAMA32(hidden_size=3072, mlp_size=8192, num_layers=28, num_heads=24, head_dim=128),
    "llama3-8b": _LLAMA3(
        hidden_size=4096, mlp_size=14_336, num_layers=32, num_heads=32, head_dim=128, tie_embeddings=False,
        max_positions=8192,
    ),
}  # fmt: skip
"""Base models at their public sizes, and three small models of the Qwen2 family for quick runs."""
SMALL, LARGE = "pico", "mini"
"""Names of the sizes that runs with random weights have by default: on a CPU, and on anything else."""
