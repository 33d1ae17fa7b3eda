"""A T5 that is as small as the decoder of `tiny_run`."""

from pathlib import Path

import pytest
from flax import nnx
from tiny_models import T5_1_0
from tiny_run import TITLES

from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.models.hf_save import save_model
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import T5Config


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a T5 with its first weights, and the tokenizer of the decoder's folder."""
    folder, tokenizer = tmp_path_factory.mktemp("t5"), train_tokenizer(TITLES, vocab_size=300)
    config = T5Config(**vars(T5_1_0) | {"vocab_size": tokenizer.vocab_size})
    save_model(nnx.jit(lambda: T5(config, rngs=nnx.Rngs(0)))(), folder, eos=1)
    tokenizer.save(folder)
    return folder
