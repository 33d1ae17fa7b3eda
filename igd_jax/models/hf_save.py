"""Writes models as folders that transformers opens, and adapters as folders that PEFT opens: JSON and safetensors.

Adapters are merged into the weights in float32, W + (alpha / r) A B, and quantised weights are written as what they
stand for. One stacked array, and the tensors of one file, are in host memory at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.typing import DTypeLike
from jaxtyping import Shaped
from safetensors.numpy import save_file

from igd_jax.core.io import atomic_file, write_json
from igd_jax.models.decoder import Decoder
from igd_jax.models.decoder_weights import NAMES
from igd_jax.models.hf_config import to_hf
from igd_jax.models.hf_weights import Name
from igd_jax.models.lora import LoRA
from igd_jax.models.quantized import Quantized
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import to_hf as t5_to_hf
from igd_jax.models.t5_weights import names as t5_names

SHARD_BYTES = 5_000_000_000
"""Most bytes of tensors in a file, unless a tensor alone has more."""


def save_model(
    model: Decoder | T5, folder: Path, *, eos: int, bos: int | None = None, dtype: DTypeLike = jnp.float32
) -> None:
    """Write ``config.json`` and the weights of a decoder, its adapters merged, or of a T5.

    Args:
      model: the model.
      folder: existing folder.
      eos: id at the end of a text, where ``generate`` stops; it also pads, except in a T5.
      bos: id at the start of a text, if there is one.
      dtype: dtype of all tensors.

    Raises:
      InputError: the decoder has switches that no family of `models.config` combines.
    """
    name = str(jnp.dtype(dtype))
    ids: dict[str, Any] = {"eos_token_id": eos} | ({} if bos is None else {"bos_token_id": bos})
    ids |= {"dtype": name, "torch_dtype": name}  # the latter for transformers 4
    names: Sequence[Name]
    if isinstance(model, T5):
        config = t5_to_hf(model.config) | ids | {"pad_token_id": model.config.start_id}
        names = t5_names(gated=model.config.gated)
    else:
        config, names = to_hf(model.config) | ids | {"pad_token_id": eos}, NAMES
    save_tensors(tensors_of(model, names, dtype), folder)
    write_json(folder / "config.json", config)


def tensors_of(model: nnx.Module, names: Sequence[Name], dtype: DTypeLike) -> Iterator[tuple[str, np.ndarray]]:
    """Hugging Face name and numbers of each tensor, in `dtype`; names that the model does not have are passed over."""
    paths = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep=".")
    for name, path, transposed in names:
        if path in paths:
            array = _merged(model, path)
            for layer, part in enumerate(array) if "{layer}" in name else [(0, array)]:
                part = part.T if transposed else part
                yield name.format(layer=layer), np.ascontiguousarray(part).astype(dtype, copy=False)


def _merged(model: nnx.Module, path: str) -> Shaped[np.ndarray, "..."]:
    """An array of the model by its path; kernels are dense, with their adapters added."""
    *above, name = path.split(".")
    module: Any = reduce(getattr, above, model)
    value = getattr(module, name).get_value()
    array = np.asarray(value.astype(jnp.float32).dense() if isinstance(value, Quantized) else value)
    adapter = getattr(module, "adapter", None) if name == "kernel" else None
    if adapter is None:
        return array
    a, b = (np.asarray(part[...]) for part in (adapter.a, adapter.b))
    return array.astype(np.float32) + np.float32(adapter.scale) * (a @ b)


def save_tensors(tensors: Iterable[tuple[str, np.ndarray]], folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write ``model.safetensors``, or several files and their index where the tensors are more than `shard_bytes`."""
    parts: list[list[str]] = []
    part, n_bytes, total = dict[str, np.ndarray](), 0, 0

    def flush() -> None:
        with atomic_file(folder / _shard(len(parts))) as partial:
            save_file(part, partial, metadata={"format": "pt"})  # required by transformers
        parts.append(list(part))
        part.clear()

    for name, tensor in tensors:
        if part and n_bytes + tensor.nbytes > shard_bytes:
            flush()
            n_bytes = 0
        part[name] = tensor
        n_bytes, total = n_bytes + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(parts) == 1:
        (folder / _shard(0)).rename(folder / "model.safetensors")
        return
    files = [f"model-{number + 1:05}-of-{len(parts):05}.safetensors" for number in range(len(parts))]
    for number, file in enumerate(files):
        (folder / _shard(number)).rename(folder / file)
    weight_map = {name: file for file, names in zip(files, parts, strict=True) for name in names}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shard(number: int) -> str:
    """Name of a file while the number of files is not known."""
    return f"model-{number + 1:05}.safetensors"


def save_adapter(model: Decoder, lora: LoRA, folder: Path, *, base: str, dtype: DTypeLike = jnp.float32) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` for PEFT.

    Args:
      model: decoder with adapters, and nothing else that was trained.
      lora: settings of the adapters.
      folder: existing folder.
      base: Hugging Face folder of the model that they adapt, by path or URL.
      dtype: dtype of the tensors.
    """
    tensors, modules = dict[str, np.ndarray](), []
    for name, path, _ in NAMES:
        *above, last = path.split(".")
        if last != "kernel" or above[-1] not in lora.names:
            continue
        linear: Any = reduce(getattr, above, model)
        stem = name.removesuffix(".weight")
        modules.append(stem.rpartition(".")[2])
        for part, stacked in (("lora_A", linear.adapter.a), ("lora_B", linear.adapter.b)):
            for layer, array in enumerate(np.asarray(stacked[...])):
                key = f"base_model.model.{stem.format(layer=layer)}.{part}.weight"
                tensors[key] = np.ascontiguousarray(array.T).astype(dtype, copy=False)
    with atomic_file(folder / "adapter_model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(folder / "adapter_config.json", config)
