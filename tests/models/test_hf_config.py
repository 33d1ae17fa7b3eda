import pytest

from igd_jax.core.errors import InputError
from igd_jax.models.config import NAMED, Llama3Scaling
from igd_jax.models.hf_config import from_hf

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
LLAMA_SCALING = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA = {
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": LLAMA_SCALING,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}


def without(config: dict, *names: str) -> dict:
    return {name: value for name, value in config.items() if name not in names}


@pytest.mark.parametrize(
    ("config", "name"),
    [(QWEN2, "qwen2.5-1.5b"), (QWEN3, "qwen3-0.6b"), (LLAMA, "llama3.2-1b")],
    ids=lambda x: str(x)[:12],
)
def test_published_config_is_the_named_one(config: dict, name: str):
    assert from_hf(config) == NAMED[name]


@pytest.mark.parametrize("config", [QWEN2, LLAMA], ids=["qwen2", "llama"])
def test_both_spellings_of_the_rotary_settings_are_one(config: dict):
    new = without(config, "rope_theta", "rope_scaling")
    new["rope_parameters"] = {
        "rope_type": "default",
        **config.get("rope_scaling", {}),
        "rope_theta": config["rope_theta"],
    }
    assert from_hf(new) == from_hf(config)


def test_rotary_scaling_is_read():
    expected = Llama3Scaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)
    assert from_hf(LLAMA).rope_scaling == expected


@pytest.mark.parametrize("spelling", [{}, {"rope_parameters": {"rope_type": "default"}}, {"rope_theta": None}])
def test_no_rotary_base_is_an_error(spelling: dict):
    with pytest.raises(InputError, match="rope_theta is missing"):
        from_hf(without(QWEN2, "rope_theta") | spelling)


def test_the_first_llamas_name_neither_groups_of_heads_nor_a_base():
    old = without(LLAMA, "rope_theta", "rope_scaling", "num_key_value_heads")
    old |= {"max_sequence_length": 2048, "max_length": 20, "_attn_implementation_autoset": True}
    found = from_hf(old)
    assert (found.num_kv_heads, found.rope_theta) == (LLAMA["num_attention_heads"], 10_000.0)
    with pytest.raises(InputError, match="rope_theta is missing"):
        from_hf(old | {"rope_parameters": {"rope_type": "default"}})


def test_two_different_rotary_bases_are_an_error():
    with pytest.raises(InputError, match=r"rope_theta is 1000000\.0 in the config and 10000\.0 in rope_parameters"):
        from_hf(QWEN2 | {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}})


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window is True"),
        (QWEN2, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is"),
        (QWEN2, {"hidden_act": "gelu"}, "hidden_act is 'gelu', only 'silu'"),
        (QWEN2, {"attention_dropout": 0.1}, r"attention_dropout is 0\.1"),
        (LLAMA, {"attention_bias": True}, "attention_bias is True"),
        (LLAMA, {"mlp_bias": True}, "mlp_bias is True"),
        (LLAMA, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_type is 'linear'"),
        (LLAMA, {"rope_scaling": LLAMA_SCALING | {"factor": None}}, "factor is missing"),
        (LLAMA, {"rope_scaling": LLAMA_SCALING | {"low_freq_factor": 4.0}}, "not below"),
        (LLAMA, {"rope_scaling": LLAMA_SCALING | {"beta_fast": 32.0}}, "beta_fast is not understood"),
        (LLAMA, {"rope_scaling": "llama3"}, "expected an object"),
        (LLAMA, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        (
            QWEN2,
            {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
            r"partial_rotary_factor is 0\.5",
        ),
        (QWEN3, {"head_dim": None}, "head_dim is missing"),
        (QWEN3, {"hidden_size": "1024"}, "hidden_size is '1024'"),
        (QWEN3, {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        (QWEN3, {"vocab_size": 2**31}, "vocab_size is 2147483648, expected a positive int of at most 16,777,216"),
        (QWEN3, {"max_position_embeddings": 2**63}, "max_position_embeddings is 9223372036854775808, expected"),
        (QWEN3, {"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        (QWEN3, {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, expected a positive float"),
        (QWEN3, {"rope_theta": float("inf")}, "rope_theta is inf, expected a positive float"),
        (QWEN2, {"hidden_size": 4}, "head width 0"),
        (QWEN3, {"tie_word_embeddings": "false"}, "expected true or false"),
        (QWEN3, {"tie_word_embeddings": 1}, "expected true or false"),
        (QWEN3, {"quantization_config": {"bits": 4}}, "quantization_config is not understood"),
        (LLAMA, {"rope_interleaved": True}, "rope_interleaved is True, only False is supported"),
        (QWEN3, {"num_key_value_heads": 3}, "16 query heads, 3 key-value heads"),
    ],
    ids=str,
)
def test_what_would_change_the_maths_is_refused(base: dict, change: dict, message: str):
    from_hf(base)
    with pytest.raises(InputError, match=message):
        from_hf(base | change)


def test_marks_of_programs_that_saved_a_model_do_not_change_it():
    marks = {"is_llama_config": True, "rope_interleaved": False, "unsloth_fixed": True, "tokenizer_class": "GPT2"}
    marks |= {"top_k": 50, "do_sample": False, "is_decoder": False, "pruned_heads": {}}  # written in full
    assert from_hf(LLAMA | marks) == from_hf(LLAMA)


def test_all_problems_come_in_one_message():
    with pytest.raises(InputError) as error:
        from_hf(without(QWEN2, "vocab_size", "rope_theta") | {"hidden_act": "relu", "logit_scale": 2.0, "attn_cap": 5})
    for part in ("vocab_size", "rope_theta", "hidden_act", "logit_scale", "attn_cap"):
        assert part in str(error.value)


def test_null_fields_count_as_absent():
    assert from_hf(QWEN2 | {"logit_scale": None, "rope_scaling": None}) == from_hf(QWEN2)


def test_head_width_is_derived_where_it_is_not_given():
    assert from_hf(QWEN2).head_dim == 128
    assert from_hf(QWEN2 | {"head_dim": 64}).head_dim == 64


@pytest.mark.parametrize("config", [{"model_type": "gpt2"}, {}])
def test_unknown_architecture_names_those_supported(config: dict):
    with pytest.raises(InputError, match=f"'{config.get('model_type')}'; expected one of qwen2, qwen3, llama"):
        from_hf(config)
