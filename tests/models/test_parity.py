"""Our decoder against tiny random models of the transformers library, through the folders that it saves."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igd_jax.models.decoder_weights import load_decoder
from igd_jax.models.visibility import Causal, positions_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 0.01,  # large enough to be seen
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, grouped, tied": ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2, one key head, untied": ("Qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": False}),
    "qwen3, wide heads, tied": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3, all heads, untied": ("Qwen3", {"num_key_value_heads": 4, "head_dim": 8, "tie_word_embeddings": False}),
    "llama3, scaled, tied": (
        "Llama",
        {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True},
    ),
    "llama3, all heads, untied": ("Llama", {"num_key_value_heads": 4, "tie_word_embeddings": False}),
}


def save_random(case: str, folder: Path, *, dtype: Any = torch.float32, **options: Any) -> None:
    """Leave a model with random values in every weight, norms and biases too, in `folder`."""
    family, switches = CASES[case]
    config = getattr(transformers, f"{family}Config")(**SIZES, **switches)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.to(dtype).save_pretrained(folder, **options)


def compare(folder: Path) -> None:
    """Both sides read the folder and compute in float32."""
    ids = np.random.default_rng(0).integers(0, SIZES["vocab_size"], (2, 40))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), output_hidden_states=True)
    decoder = load_decoder(folder)
    valid = jnp.ones(ids.shape, bool)

    @jax.jit
    def forward(ids):
        hidden, _ = decoder(ids, positions=positions_of(valid), visible=Causal(valid))
        return hidden, decoder.logits(hidden)

    hidden, logits = forward(jnp.asarray(ids, jnp.int32))
    np.testing.assert_allclose(hidden, expected.hidden_states[-1].numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_last_hidden_are_those_of_transformers(case: str, tmp_path: Path):
    save_random(case, tmp_path)
    compare(tmp_path)


def test_sharded_folder_gives_the_same_model(tmp_path: Path):
    save_random("qwen2, grouped, tied", tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    compare(tmp_path)


def test_bfloat16_folder_is_read_exactly(tmp_path: Path):
    save_random("llama3, scaled, tied", tmp_path, dtype=torch.bfloat16)
    compare(tmp_path)
