"""Sizes and switches of a decoder-only language model, by name or from a Hugging Face ``config.json``."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

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


def named(name: str, *, vocab_size: int | None = None) -> ModelConfig:
    """The config called `name` in `NAMED`, with `vocab_size` embedding rows if given.

    Raises:
      InputError: an unknown name; the message lists the known ones.
    """
    if name not in NAMED:
        raise InputError(f"no model is called {name!r}; expected one of {', '.join(NAMED)}; or give a model folder")
    config = NAMED[name]
    return config if vocab_size is None else dataclasses.replace(config, vocab_size=vocab_size)


LARGEST: dict[type, int] = {int: 1 << 24, float: 10**12}
"""Of numbers in a model's config; sizes beyond are those of no model, and products of them overflow."""

FAMILIES = {
    "qwen2": {"qkv_bias": True, "qk_norm": False},
    "qwen3": {"qkv_bias": False, "qk_norm": True},
    "llama": {"qkv_bias": False, "qk_norm": False},
}
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "mlp_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "max_position_embeddings": "max_positions",
}
_ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "use_mrope": False,
    "partial_rotary_factor": 1.0,
    "is_encoder_decoder": False,
}
"""Fields with a single supported value, which is also the meaning of null or no value in all three families."""
_READ_APART = {
    "model_type", "head_dim", "layer_types", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "tie_word_embeddings",
}  # fmt: skip
_HARMLESS = {
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label",
    "initializer_range", "label2id", "max_window_layers", "output_attentions", "output_hidden_states", "pad_token_id",
    "pretraining_tp", "problem_type", "return_dict", "sliding_window", "torch_dtype", "transformers_version",
    "use_cache",
}  # fmt: skip
"""Fields that do not affect the computation: ids, labels, storage, or details of a switch that `_ONLY` keeps off."""


def from_hf(config: dict[str, Any]) -> ModelConfig:
    """Read a Hugging Face config of ``model_type`` qwen2, qwen3 or llama.

    The rotary base is taken from ``rope_theta`` or, as transformers 5 writes it, from ``rope_parameters``.

    Raises:
      InputError: an unknown architecture; or, all in one message, fields that are missing, contradictory, unsupported,
        or unknown, as these might affect the computation.
    """
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise InputError(f"the model is of type {family!r}; expected one of {', '.join(FAMILIES)}; choose such a model")
    problems = _unsupported(config)
    fields: dict[str, Any] = {"tie_embeddings": config.get("tie_word_embeddings") is True, **FAMILIES[family]}
    for theirs, ours in _SIZES.items():
        fields[ours] = positive_number(config, theirs, int, problems)
    fields["rms_norm_eps"] = positive_number(config, "rms_norm_eps", float, problems)
    if config.get("head_dim") is not None or family == "qwen3":
        fields["head_dim"] = positive_number(config, "head_dim", int, problems)
    else:
        fields["head_dim"] = fields["hidden_size"] // fields["num_heads"]
    fields["rope_theta"], fields["rope_scaling"] = _rope(config, problems)
    if problems:
        raise InputError(
            f"the {family} config cannot be used: {'; '.join(problems)}; correct it or choose another model"
        )
    return ModelConfig(**fields)


def _unsupported(config: dict[str, Any]) -> list[str]:
    problems = [
        f"{name} is {config[name]!r}, only {value!r} is supported"
        for name, value in _ONLY.items()
        if config.get(name) is not None and config[name] != value
    ]
    layer_types = config.get("layer_types") or []
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        problems.append(f"layer_types is {layer_types!r}, only full_attention is supported")
    if config.get("tie_word_embeddings") not in (None, True, False):
        problems.append(f"tie_word_embeddings is {config['tie_word_embeddings']!r}, expected true or false")
    known = _SIZES.keys() | _ONLY.keys() | _READ_APART | _HARMLESS
    problems += [
        f"{name} is not understood" for name, value in config.items() if name not in known and value is not None
    ]
    return problems


def positive_number(
    fields: dict[str, Any], name: str, kind: type[int] | type[float], problems: list[str]
) -> int | float:
    """Read a positive number within `LARGEST`; for anything else a problem is noted and 1 is returned."""
    value = fields.get(name)
    if isinstance(value, (int, kind)) and not isinstance(value, bool) and 0 < value <= LARGEST[kind]:
        return kind(value)
    expected = f"a positive {kind.__name__} of at most {LARGEST[kind]:,}"
    problems.append(f"{name} is missing" if value is None else f"{name} is {value!r}, expected {expected}")
    return kind(1)


def _rope(config: dict[str, Any], problems: list[str]) -> tuple[float, Llama3Scaling | None]:
    """Merge the two spellings: ``rope_theta`` beside ``rope_scaling``, or all in ``rope_parameters``."""
    rope: dict[str, Any] = {}
    for source in ({"rope_theta": config.get("rope_theta")}, config.get("rope_scaling"), config.get("rope_parameters")):
        if not isinstance(source, dict | None):
            problems.append(f"the rope settings are {source!r}, expected an object")
            continue
        for key, value in (source or {}).items():
            name = "rope_type" if key == "type" else key
            if value is not None and rope.setdefault(name, value) != value:
                problems.append(f"{name} is given both as {rope[name]!r} and as {value!r}")
    theta = float(positive_number(rope, "rope_theta", float, problems))
    kind = rope.get("rope_type", "default")
    scaling = None
    known = {"rope_theta", "rope_type", "partial_rotary_factor"}
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        problems.append(f"partial_rotary_factor is {rope['partial_rotary_factor']!r}, only 1.0 is supported")
    if kind == "llama3":
        known |= {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
        scaling = Llama3Scaling(
            factor=float(positive_number(rope, "factor", float, problems)),
            low_freq_factor=float(positive_number(rope, "low_freq_factor", float, problems)),
            high_freq_factor=float(positive_number(rope, "high_freq_factor", float, problems)),
            original_max_position=int(positive_number(rope, "original_max_position_embeddings", int, problems)),
        )
        if not scaling.low_freq_factor < scaling.high_freq_factor:
            problems.append("low_freq_factor is not below high_freq_factor")
    elif kind != "default":
        problems.append(f"rope_type is {kind!r}, only 'default' and 'llama3' are supported")
        return theta, None
    problems += [f"rope field {name} is not understood" for name in rope if name not in known]
    return theta, scaling
