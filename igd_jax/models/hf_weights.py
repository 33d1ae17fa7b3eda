"""Reads models from Hugging Face folders: ``config.json`` and safetensors. Pickles are never opened.

A table of names says where each tensor belongs. All mismatches are reported in one list: tensors that are missing,
surplus, or of a wrong shape or dtype. Tied tensors may be stored twice if they are equal.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from safetensors import SafetensorError, safe_open

from igd_jax.core.arrays import check_finite
from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json
from igd_jax.models.quantized import quantized_variable

Name: TypeAlias = tuple[str, str, bool]
"""(Hugging Face name, our path, whether it is stored transposed). For names with ``{layer}``, our arrays are stacked
along a leading axis."""

Place: TypeAlias = Callable[[Any], Any]
"""Function from a tree of shapes to the sharding of each."""
Part: TypeAlias = tuple[slice, ...]
"""Part of an array, along each of its axes."""

_DTYPES = ("BF16", "F16", "F32")

Model = TypeVar("Model", bound=nnx.Module)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read the ``config.json`` of a Hugging Face model folder.

    Raises:
      InputError: the folder or its config does not exist, or the config is not a JSON object.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        what = "has no config.json" if path.is_dir() else "is not a folder"
        raise InputError(
            f"{path} {what}; expected a Hugging Face model folder; download the whole model and give its path"
        )
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise InputError(
            f"{path / 'config.json'} holds a {type(config).__name__}; expected an object; download it again"
        )
    return config


@dataclass(frozen=True)
class Tensor:
    """A tensor of an open file, which is read on demand.

    Attributes:
      name: name of the tensor in the file.
      path: path of the file.
      file: the open file.
    """

    name: str
    path: Path
    file: Any

    def shape_and_dtype(self) -> tuple[tuple[int, ...], str]:
        """Shape and safetensors dtype, from the header of the file."""
        piece = self.file.get_slice(self.name)
        return tuple(piece.get_shape()), piece.get_dtype()

    def read(self, part: Part = ()) -> np.ndarray:
        """Read the numbers, or a part of them; raises `InputError` if one of them is not finite."""
        array = self.file.get_slice(self.name)[part] if part else self.file.get_tensor(self.name)
        check_finite(f"{self.name} in {self.path}", array, remedy="download it again, or choose another model")
        return array


@dataclass(frozen=True)
class Source:
    """Open files of a folder.

    Attributes:
      folder: the folder.
      tensors: all tensors by name.
    """

    folder: Path
    tensors: Mapping[str, Tensor]


def fill(
    template: Model,
    source: Source,
    names: Sequence[Name],
    *,
    copies: Mapping[str, str],
    ignored: Collection[str] = (),
    quantize: str = "",
    place: Place | None = None,
) -> Model:
    """A model with the shapes of `template` and the weights of the files.

    Args:
      template: model of abstract arrays.
      source: the files.
      names: names of all arrays that the model may have.
      copies: names of tensors that are allowed if they equal another one, with the name of that one; not read.
      ignored: names of tensors that are allowed and not read.
      quantize, place: as in `decoder_weights.load_decoder`.

    Raises:
      InputError: tensors are missing, surplus, or of another shape or dtype, all in one message; or a tensor holds nan
        or infinity.
    """
    graph, state = nnx.split(template)
    shapes = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep=".")
    expected = _expected(shapes, names)
    if problems := _mismatches(source.tensors, expected, copies, ignored):
        raise InputError(
            f"the weights in {source.folder} do not fit its config.json (- missing, + surplus, ! unusable):\n  "
            + "\n  ".join(problems)
            + "\nexpected exactly the tensors of that config; give the folder whose two parts belong together"
        )
    of_path = {path: (name, transposed) for name, path, transposed in names}
    at = traverse_util.flatten_dict(nnx.to_pure_dict(place(state)), sep=".") if place else {}
    model = nnx.merge(graph, state)
    for path, like in shapes.items():
        weights = _placed(source.tensors, *of_path[path], like, sharding=at.get(path))
        *above, name = path.split(".")
        is_quantized = quantize and name == "kernel"
        variable = quantized_variable(weights, quantize) if is_quantized else nnx.Param(weights)
        setattr(reduce(getattr, above, model), name, variable)
    return model


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        content = read_json(index)
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise InputError(f"{index} lists no files of its folder; expected a weight_map of names; download it again")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise InputError(f"{folder} lacks {', '.join(absent)}, which {index.name} lists; download the whole model")
        return [folder / name for name in names]
    if pickles := sorted(path.name for pattern in ("pytorch_model*.bin", "*.pth") for path in folder.glob(pattern)):
        raise InputError(
            f"{folder} has its weights only as pickles ({', '.join(pickles)}), which can run code and are never read; "
            "expected safetensors; convert them where you trust them, with transformers' save_pretrained"
        )
    raise InputError(f"{folder} has no weights; expected model.safetensors or shards with {index.name}; download them")


def open_tensors(folder: Path, stack: ExitStack) -> dict[str, Tensor]:
    """All tensors by name; their files stay open until `stack` is closed."""
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        try:
            file = stack.enter_context(safe_open(path, framework="numpy"))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} cannot be read as safetensors ({error}); download it again") from None
        names = set(file.keys())
        if twice := sorted(names & tensors.keys()):
            raise InputError(f"{folder} holds {', '.join(twice)} in two files; expected one; download the model afresh")
        tensors |= {name: Tensor(name, path, file) for name in names}
    return tensors


def _expected(shapes: dict[str, Any], names: Sequence[Name]) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes of the arrays with our paths and shapes."""
    expected = {}
    for name, path, transposed in names:
        if path not in shapes:
            continue
        shape, layers = shapes[path].shape, range(1)
        if "{layer}" in name:
            layers, shape = range(shape[0]), shape[1:]
        for layer in layers:
            expected[name.format(layer=layer)] = shape[::-1] if transposed else shape
    return expected


def _mismatches(
    tensors: Mapping[str, Tensor],
    expected: dict[str, tuple[int, ...]],
    copies: Mapping[str, str],
    ignored: Collection[str],
) -> list[str]:
    problems = [f"- {name}" for name in expected if name not in tensors]
    for name in sorted(tensors.keys() - ignored):
        shape, dtype = tensors[name].shape_and_dtype()
        if name in copies:
            if copies[name] in tensors and not _equal(tensors, name, copies[name]):
                problems.append(f"! {name} is not {copies[name]}, though config.json ties them")
        elif name not in expected:
            problems.append(f"+ {name}")
        elif shape != expected[name]:
            problems.append(f"! {name} is {shape}, expected {expected[name]}")
        elif dtype not in _DTYPES:
            problems.append(f"! {name} is {dtype}, expected one of {', '.join(_DTYPES)}")
    return problems


def _equal(tensors: Mapping[str, Tensor], *names: str) -> bool:
    first, second = (tensors[name].read().astype(np.float32, copy=False) for name in names)
    return np.array_equal(first, second)


def _placed(
    tensors: Mapping[str, Tensor], name: str, transposed: bool, like: Any, *, sharding: jax.sharding.Sharding | None
) -> jax.Array:
    """One of our arrays in the shape and dtype of `like`, on the devices; copies of a part are read once."""
    if sharding is None:
        return jnp.asarray(_read(tensors, name, transposed, like, tuple(slice(0, size) for size in like.shape)))
    parts: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}

    def part_at(part: Part | None) -> np.ndarray:
        assert part is not None
        key = tuple(along.indices(size) for along, size in zip(part, like.shape, strict=True))
        if key not in parts:
            parts[key] = _read(tensors, name, transposed, like, tuple(slice(*bounds) for bounds in key))
        return parts[key]

    return jax.make_array_from_callback(like.shape, sharding, part_at)


def _read(tensors: Mapping[str, Tensor], name: str, transposed: bool, like: Any, part: Part) -> np.ndarray:
    """Read a part of one of our arrays, with layers stacked, in the dtype of `like`."""

    def tensor(name: str, part: Part) -> np.ndarray:
        array = tensors[name].read(part[::-1] if transposed else part)
        return array.T if transposed else array

    if "{layer}" not in name:
        return tensor(name, part).astype(like.dtype, copy=False)
    layers = range(part[0].start, part[0].stop)
    stacked = np.empty((len(layers), *(along.stop - along.start for along in part[1:])), like.dtype)
    for at, layer in enumerate(layers):
        stacked[at] = tensor(name.format(layer=layer), part[1:])
    return stacked
