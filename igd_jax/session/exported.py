"""Exported folders (docs/export.md): their files, and the run that one of them holds, without data and checkpoints."""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ml_collections import ConfigDict

from igd_jax.core.compilation import cache_compilations
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.log import say
from igd_jax.core.shown import shortened
from igd_jax.data.prepared import Prepared
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.index import ItemIndex
from igd_jax.methods import load_method
from igd_jax.models.hf_weights import read_config
from igd_jax.session.session import ItemFacts, Session, put_together
from igd_jax.settings.config_flags import FREE_TO_DECODE, config_at, differing
from igd_jax.settings.sections import DTYPES
from igd_jax.settings.settings import TO_DECODE, settings_from
from igd_jax.training.mesh import make_mesh

SETTINGS, RUN, ITEMS, TRIE, ADAPTER = "igd_jax.json", "run.json", "items.jsonl", "trie.npz", "adapter_config.json"
FORMAT = 1
"""Version of the layout."""
NEEDED = TO_DECODE - {"data.dir", "data.candidates", "decode.candidates"}
"""Paths that must exist; the folder holds the items and the candidates itself."""
AGAIN = "export the run again"


def is_exported(folder: str | Path) -> bool:
    """Whether a folder is one that `igd_jax.export` has written."""
    return (Path(folder) / SETTINGS).is_file()


def exported_config(folder: Path) -> ConfigDict:
    """Config of the run behind an exported folder, with the model and the candidates of the folder."""
    config = config_at(folder / RUN)
    is_merged = (config.model.lora_rank or config.model.quantize) and not (folder / ADAPTER).is_file()
    if is_merged and read_config(folder).get("dtype") == DTYPES[0]:
        # Sums of weights and adapters are finer than the run's weights: rounded to these, adapters would be lost.
        config.model.update(dtype=DTYPES[0], param_dtype=DTYPES[0])
    config.model.update(path=str(folder), lora_rank=0, quantize="")
    config.tokenizer.path = str(folder)
    config.data.candidates = config.decode.candidates = config.decode.candidates or config.data.candidates
    return config


def exported_session(config: ConfigDict, folder: Path) -> tuple[Session, Workdir]:
    """Set up decoding of the model of an exported folder.

    Args:
      config: config of the folder, which may be changed in how it is decoded.
      folder: the folder, which is only read.

    Returns:
      The session, and a workdir without a run, so that the weights are those of the folder.

    Raises:
      InputError: the folder holds adapters or no trie, was altered, or the config is bad or changed in other fields.
    """
    if (folder / ADAPTER).is_file() or not (folder / TRIE).is_file():
        what = "adapters alone" if (folder / ADAPTER).is_file() else "no trie"
        raise InputError(f"{folder} holds {what}, which is not opened here; load the run, or export it merged")
    content = read_json(folder / SETTINGS)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{folder / SETTINGS} is not of format {FORMAT}, which this program reads; {AGAIN}")
    if differ := differing(exported_config(folder), config, free=FREE_TO_DECODE):
        raise InputError(f"{folder} holds a run of another config, {', '.join(differ)}; leave them as they are there")
    settings = settings_from(config, needs=NEEDED)
    cache_compilations()
    prepared, facts = _items(folder, fingerprint=str(content.get("data_fingerprint")))
    workdir, mesh = Workdir(str(folder / "run")), make_mesh(**vars(settings.mesh))
    method = load_method(settings.method.name, settings.method.args)
    session = put_together(
        settings, method, prepared, load_tokenizer(folder), facts, mesh, workdir.cache, workdir.cache
    )
    _check_trie(folder / TRIE, session.index)
    trained = config_at(folder / RUN).data.candidates
    if trained != settings.data.candidates:
        say(
            f"note: the folder holds the candidates {settings.data.candidates}, and not those of training, {trained}: "
            "lists are those of the run, but what is explained of a title is meant among the folder's"
        )
    if not session.method.beam_search:
        raise InputError(
            f"{folder} is of a run of {settings.method.name}, which needs more for its lists than the folder holds; "
            "load the run"
        )
    return session, workdir


def trie_arrays(index: ItemIndex) -> dict[str, np.ndarray]:
    """Content of ``trie.npz``; rows are numbered among the candidates."""
    trie, gain = index.trie, index.gain
    return {
        "token": trie.token,
        "branch": trie.branch,
        "child_start": trie.child_start,
        "child": trie.child,
        "gain": gain.gain,
        "factor": gain.factor,
        "leaf": trie.leaf,
        "row": np.arange(len(trie.row), dtype=np.int32),
    }


def _check_trie(path: Path, index: ItemIndex) -> None:
    """Raise `InputError` unless the trie of a folder is that of its items."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (BadZipFile, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as arrays of numbers ({shortened(str(error))}); {AGAIN}") from None
    expected = trie_arrays(index)
    if found.keys() != expected.keys() or not all(np.array_equal(found[name], expected[name]) for name in expected):
        raise InputError(f"{path} is not the trie of {ITEMS} and tokenizer.json beside it; {AGAIN}")


def _items(folder: Path, *, fingerprint: str) -> tuple[Prepared, ItemFacts]:
    """The items and what training saw of them."""
    try:
        with (folder / ITEMS).open(encoding="utf-8") as lines:  # str.splitlines would split titles with U+2028, too
            items = [json.loads(line) for line in lines]
        ids, titles = [str(item["item"]) for item in items], [str(item["title"]) for item in items]
        codes = {"code": [str(item["code"]) for item in items]} if items and "code" in items[0] else {}
        counts = np.array([int(item["targets"]) for item in items], np.int64)
        seen, candidates = (
            np.array(mask, bool)
            for mask in zip(*((item["seen"] is True, item["row"] is not None) for item in items), strict=True)
        )
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{folder / ITEMS} holds no items as they were exported ({error!r}); {AGAIN}") from None
    prepared = Prepared(ids, titles, {}, {"fingerprint": fingerprint}, texts=codes)
    return prepared, ItemFacts(counts, seen, candidates, "exported")
