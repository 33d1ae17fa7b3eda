"""Configs of decoders from and to a Hugging Face ``config.json``."""

from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.models.config import Llama3Scaling, ModelConfig

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
    "rope_interleaved": False,
    "is_encoder_decoder": False,
}
"""Fields with a single supported value, which is also the meaning of null or no value in all three families."""
_READ_APART = {
    "model_type", "head_dim", "layer_types", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "tie_word_embeddings",
}  # fmt: skip
HARMLESS = {
    "_attn_implementation_autoset", "max_length", "max_sequence_length", "unsloth_fixed", "unsloth_version",
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label",
    "initializer_range", "is_llama_config", "label2id", "max_window_layers", "output_attentions",
    "output_hidden_states", "pad_token_id", "pretraining_tp", "problem_type", "return_dict", "sliding_window",
    "tf_legacy_loss", "tokenizer_class", "torch_dtype", "torchscript", "transformers_version", "use_bfloat16",
    "use_cache",
    # How to generate, in configs that transformers 4 has written in full.
    "bad_words_ids", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "length_penalty", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "output_scores", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "temperature", "top_k",
    "top_p", "typical_p",
}  # fmt: skip
"""Fields that do not affect the computation: ids, labels, storage, or details of a switch that `_ONLY` keeps off."""
_ONLY_OF_ALL = {"add_cross_attention": False, "is_decoder": False, "pruned_heads": {}, "tie_encoder_decoder": False}
"""As `_ONLY`, of all kinds of models."""
REMEDY = "correct it (a field that does not affect the computation may be deleted) or choose another model"


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
    if family == "llama":
        config = _with_what_old_ones_lack(config)
    problems = unsupported(config, only=_ONLY, known=_SIZES.keys() | _READ_APART | HARMLESS)
    layer_types = config.get("layer_types") or []
    if not isinstance(layer_types, list) or any(kind != "full_attention" for kind in layer_types):
        problems.append(f"layer_types is {layer_types!r}, only full_attention is supported")
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
        raise InputError(f"the {family} config cannot be used: {'; '.join(problems)}; {REMEDY}")
    return ModelConfig(**fields)


def _with_what_old_ones_lack(config: dict[str, Any]) -> dict[str, Any]:
    """A Llama's config, also of the first two generations, which name neither groups of heads nor a rotary base."""
    meant: dict[str, Any] = {"num_key_value_heads": config.get("num_attention_heads")}
    if not config.get("rope_parameters"):
        meant["rope_theta"] = 10_000.0
    return meant | {name: value for name, value in config.items() if value is not None}


def unsupported(config: dict[str, Any], *, only: dict[str, Any], known: set[str]) -> list[str]:
    """Problems of the fields that are not sizes.

    Args:
      config: the config.
      only: fields with a single supported value, which is also the meaning of null or no value.
      known: names of the other fields that are read or do not affect the computation.
    """
    only = _ONLY_OF_ALL | only
    problems = [
        f"{name} is {config[name]!r}, only {value!r} is supported"
        for name, value in only.items()
        if config.get(name) is not None and config[name] != value
    ]
    if not isinstance(config.get("tie_word_embeddings"), bool | None):
        problems.append(f"tie_word_embeddings is {config['tie_word_embeddings']!r}, expected true or false")
    known = only.keys() | known
    return problems + [
        f"{name} is not understood" for name, value in config.items() if name not in known and value is not None
    ]


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
    rope, where = dict[str, Any](), dict[str, str]()
    sources: dict[str, Any] = {"the config": {"rope_theta": config.get("rope_theta")}}
    sources |= {field: config.get(field) for field in ("rope_scaling", "rope_parameters")}
    for field, source in sources.items():
        if not isinstance(source, dict | None):
            problems.append(f"{field} is {source!r}, expected an object")
            continue
        for key, value in (source or {}).items():
            name = "rope_type" if key == "type" else key
            if value is not None and rope.setdefault(name, value) != value:
                problems.append(f"{name} is {rope[name]!r} in {where[name]} and {value!r} in {field}")
            where.setdefault(name, field)
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


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """The Hugging Face config that `from_hf` reads as `config`; raises `InputError` if no family has its switches."""
    switches = {"qkv_bias": config.qkv_bias, "qk_norm": config.qk_norm}
    family = next((name for name, has in FAMILIES.items() if has == switches), None)
    if family is None:
        raise InputError(f"no family of models has {switches}; expected one of {FAMILIES}; use the model as it is")
    scaling = None if config.rope_scaling is None else {"rope_type": "llama3", **vars(config.rope_scaling)}
    if scaling:
        scaling["original_max_position_embeddings"] = scaling.pop("original_max_position")
    same = ("head_dim", "rms_norm_eps", "rope_theta")
    return {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        **{theirs: getattr(config, ours) for theirs, ours in ({name: name for name in same} | _SIZES).items()},
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_embeddings,
    }
