"""A run small enough for tests: a made-up shop whose customers buy title after title, and a model of 20,000 weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx, traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from configs import igd, sasrec
from igd_jax.core.ragged import Ragged, starts_of
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import SPLITS, Rows, save
from igd_jax.data.prompts import Prompts
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.decoding.normalizing import NORMALIZE
from igd_jax.decoding.search import JUMP
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Context, DecodeOptions
from igd_jax.models.decoder import Decoder
from igd_jax.models.decoder_weights import NAMES
from igd_jax.models.hf_config import from_hf
from igd_jax.training.mesh import make_mesh

N_SOLD, N_COLD = 20, 2
"""Items that are train targets, and the ones after them that never are; the last item shares its title with item 3."""

TITLES = [
    f"{colour} {animal} ({kind})"
    for animal in ("Fox", "Heron")
    for colour in ("Red", "Grey", "Silver", "Northern", "Little", "Great", "Dusky", "Pied", "Marsh", "Reed", "Snow")
    for kind in ("print" if colour < "P" else "poster",)
][: N_SOLD + N_COLD]
TITLES.append(TITLES[3])
ITEM_IDS = [f"sku{number}" for number in range(len(TITLES))]
N_ROWS = {"train": 90, "valid": 13, "test": 22}
ABSENT_IN_TEST = 2
"""Test rows whose target is not a train target."""

HF_CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 304,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}


def save_data(folder: Path, *, seed: int = 0) -> Path:
    """A prepared folder: 1 to 3 items of history, and the target is the item after the last, round and round."""
    rng = np.random.default_rng(seed)
    splits, clock = {}, 1_600_000_000
    for split in SPLITS:
        n = N_ROWS[split]
        last, lengths = rng.permutation(np.arange(n) % N_SOLD), rng.integers(1, 4, n)
        history = np.concatenate([(end - np.arange(k)[::-1]) % N_SOLD for end, k in zip(last, lengths, strict=True)])
        target = (last + 1) % N_SOLD
        if split == "test":
            target[5 : 5 + ABSENT_IN_TEST] = N_SOLD + np.arange(ABSENT_IN_TEST)
        splits[split] = Rows(
            user=np.array([f"{split} customer {number}" for number in range(n)], object),
            history=Ragged(history.astype(np.int32), starts_of(lengths)),
            target=target.astype(np.int32),
            timestamp=clock + np.arange(n, dtype=np.int64),
        )
        clock += n
    save(assemble(item_ids=ITEM_IDS, titles=TITLES, splits=splits, dropped={}, notes={}), folder)
    return folder


def save_model(folder: Path) -> Path:
    """A Hugging Face folder with random weights and a tokenizer trained on the titles."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(HF_CONFIG), encoding="utf-8")
    save_file(_random_tensors(), folder / "model.safetensors")
    train_tokenizer(TITLES, vocab_size=300).save(folder)
    return folder


def set_positions(folder: Path, positions: int) -> None:
    """Let the model in a folder have been made for so many positions."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": positions}))


def _random_tensors() -> dict[str, np.ndarray]:
    """Weights under their Hugging Face names: normal(0.1), norms one, biases zero."""
    rng = np.random.default_rng(0)
    state = nnx.state(nnx.eval_shape(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0))))
    shapes = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep=".")
    tensors = {}
    for name, path, transposed in NAMES:
        if path not in shapes:
            continue
        shape = shapes[path].shape
        layers, shape = (range(shape[0]), shape[1:]) if "{layer}" in name else (range(1), shape)
        for layer in layers:
            random = rng.normal(0, 0.1, shape[::-1] if transposed else shape)
            value = 1.0 if path.endswith("scale") else 0.0 if path.endswith("bias") else random
            tensors[name.format(layer=layer)] = np.full(random.shape, value, np.float32)
    return tensors


def context_of(index: ItemIndex, **changes: Any) -> Context:
    """What a method may know, for tests that need little of it."""
    tokenizer = changes.pop("tokenizer", None) or train_tokenizer(TITLES, vocab_size=300)
    cache = Path("no such folder") / "cache"
    identifiers = Titles(Source(ITEM_IDS, index.titles, {}, tokenizer, cache))
    known = {
        "index": index,
        "texts": {},
        "tokenizer": tokenizer,
        "prompts": Prompts(filled("plain", category="items"), tokenizer, identifiers, cache),
        "backbone": lambda: nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))(),
        "seed": 0,
        "cache": cache,
        "data_fingerprint": "1" * 16,
        "mesh": make_mesh(data=1),
    }
    return Context(**known | changes)


def decode_options(index: ItemIndex, **changes: Any) -> DecodeOptions:
    """Four beams without rebalancing, with some fields changed; as many results as beams."""
    known = {
        "alpha": 0.0, "temperature": 1.0, "length_penalty": 0.0, "num_beams": 4, "max_length": index.longest,
        "normalize": NORMALIZE[0], "search": JUMP, "budget": -1, "batch_size": 16,
    } | changes  # fmt: skip
    return DecodeOptions(**{"top_k": known["num_beams"]} | known)


def tiny_config(folder: Path, changes: dict[str, Any] | None = None) -> ConfigDict:
    """18 steps of 16 rows on one device, with some fields changed; `folder` holds ``data`` and ``model``."""
    config = igd.get_config()
    config.data.dir, config.model.path = str(folder / "data"), str(folder / "model")
    config.train.update(
        global_batch_size=16, micro_batch_size=8, learning_rate=1e-2, warmup_steps=2, patience=0,
        checkpoint_every_steps=4, log_every_steps=3, show_sample=False,
    )  # fmt: skip
    config.decode.update(num_beams=4, batch_size=8)
    config.eval.ks = (1, 3)
    config.mesh.data = 1
    config.update_from_flattened_dict(changes or {})
    return config


def sasrec_config(folder: Path, **args: Any) -> ConfigDict:
    """48 steps of SASRec, which learn the pattern of the shop."""
    config = sasrec.get_config()
    config.data.dir, config.tokenizer.path = str(folder / "data"), str(folder / "model")
    config.method.args.update(width=16, dropout=0.1, **args)
    config.train.update(
        global_batch_size=16, micro_batch_size=8, learning_rate=3e-2, num_epochs=8, patience=0, log_every_steps=16,
        show_sample=False,
    )  # fmt: skip
    config.decode.update(num_beams=4, batch_size=8)
    config.eval.ks = (1, 3)
    config.mesh.data = 1
    return config
