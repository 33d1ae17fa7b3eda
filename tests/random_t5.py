"""A tiny random T5 of the transformers library, saved by it."""

from pathlib import Path
from typing import Any

import pytest

SIZES = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 0.01,  # large enough to be seen
    "dropout_rate": 0.0,
}
VERSIONS: dict[str, dict[str, Any]] = {
    "1.0, relu, tied": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "1.1, gated, untied": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
START = 4


def save_random(version: str, folder: Path) -> Any:
    """Leave a model with random values in every weight in `folder`; returns it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.T5Config(**SIZES, **VERSIONS[version], decoder_start_token_id=START)
    model = transformers.T5ForConditionalGeneration(config).eval()
    torch.manual_seed(0)
    if not VERSIONS[version]["tie_word_embeddings"]:  # transformers 5 ties them whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.shared.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model
