"""The golden T5 of LETTER-TIGER as a Hugging Face folder, and its data as published files."""

import json
from pathlib import Path

from golden_figures import golden_arrays, golden_figures
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models


def save_golden_t5(folder: Path) -> Path:
    """Write its weights and config, and a tokenizer of the ids below those of codes, of which only EOS is used."""
    figures, found = golden_figures("tiger"), golden_arrays("tiger")
    weights = {name: array for name, array in found.items() if not name.startswith(("tokens_", "scores_"))}
    save_file(weights, folder / "model.safetensors")
    written = figures["config"] | {"model_type": "t5"}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    words = {"<pad>": 0, "</s>": 1} | {f"word{number}": number for number in range(2, figures["n_tokens"])}
    Tokenizer(models.WordLevel(words, unk_token="<pad>")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}), encoding="utf-8")
    return folder


def save_golden_data(folder: Path) -> Path:
    """Write the sequences of users and the codes of items."""
    for name in ("inter", "index"):
        (folder / f"Toy.{name}.json").write_text(json.dumps(golden_figures("tiger")[name]), encoding="utf-8")
    return folder
