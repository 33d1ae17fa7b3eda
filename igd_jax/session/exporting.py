"""Writes a run as a folder for other programs (docs/export.md): model, tokenizer, items, settings, and carried code."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import igd_jax
from igd_jax.core.errors import InputError
from igd_jax.core.io import append_lines, is_url, write_json
from igd_jax.core.ragged import Ragged
from igd_jax.core.shown import shortened
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.mixture import Mixture
from igd_jax.decoding.normalizing import AmongChildren
from igd_jax.decoding.rebalancing import Rebalanced, rebalanced
from igd_jax.decoding.restriction import Restricted
from igd_jax.decoding.search import EXACT, STEPWISE
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_save import save_adapter, save_model
from igd_jax.models.lora import LoRA
from igd_jax.models.setrec import SetModel
from igd_jax.models.t5 import T5
from igd_jax.session.exported import FORMAT, ITEMS, RUN, SETTINGS, TRIE, trie_arrays
from igd_jax.session.limits import decode_options, room_of_prompts
from igd_jax.session.session import Session
from igd_jax.session.weights import Trained
from igd_jax.settings.config_flags import config_json

FOR_TRANSFORMERS, FOR_VLLM = "igd_transformers.py", "igd_vllm.py"
SET_TOKENS = "set_tokens.safetensors"
_AT_ONCE = 1 << 12
_TITLES_COMPARED = 1000
_ODD_TITLES = ("", " ", "\n", "a\n", "?!", '"', "A.", "3", "é", "日本")
"""Free texts of a history, whatever tokens they end in."""


def backbone_of(trained: Trained, method: str) -> Decoder | T5:
    """The part of a model that has a form in transformers; raises `InputError` if there is none."""
    model = trained.model.backbone if isinstance(trained.model, SetModel) else trained.model
    if not isinstance(model, Decoder | T5):
        raise InputError(f"the run holds a model of {method}, which no other program opens; nothing is exported")
    return model


def check_adapter(session: Session) -> LoRA:
    """Settings of the adapters that were trained; raises `InputError` unless they alone make the model."""
    given = session.settings.model
    lora = given.lora
    if lora is None:
        problem = "config.model.lora_rank is 0: there are none"
    elif not given.path:
        problem = "config.model.path is empty: they adapt random weights that are in no folder"
    elif session.identifiers.vocab_size > session.tokenizer.vocab_size:
        problem = "embeddings of new ids were trained beside them"
    else:
        return lora
    raise InputError(f"--adapter asks for adapters alone, but {problem}; leave it out to export the whole model")


def write_folder(
    folder: Path, session: Session, index: ItemIndex, trained: Trained, config: Any, *, dtype: str, lora: LoRA | None
) -> list[str]:
    """Write all files of an exported folder.

    Args:
      folder: existing, empty folder.
      session: the run.
      index: items, with the candidates of decoding.
      trained: model of the run.
      config: config of the run, a ConfigDict.
      dtype: name of the dtype of the weights.
      lora: settings of adapters that are written alone; None = the whole model is.

    Returns:
      One sentence about each thing that is not exported.
    """
    model = backbone_of(trained, session.settings.method.name)
    tokenizer = session.tokenizer
    tokenizer.save(folder)
    if lora is not None:
        assert isinstance(model, Decoder), "the settings refuse adapters on anything else"
        base = config.model.path  # and not that of the settings, which of a URL is a copy that ends with the process
        save_adapter(model, lora, folder, base=base if is_url(base) else str(Path(base).resolve()), dtype=dtype)
    else:
        save_model(model, folder, eos=tokenizer.eos, bos=tokenizer.bos, dtype=dtype)
    _write_items(folder / ITEMS, session, index)
    end = [model.config.start_id] if isinstance(model, T5) else prompt_end(session)
    notes = [*_losses(session, dtype=dtype, is_adapter=lora is not None)]
    notes += [] if lora is not None else _tokenizer_note(folder, tokenizer, session.prepared.titles)
    scoring, is_igd = _scoring(session, index, trained)
    if not is_igd:
        notes.append(
            f"the edge score of {session.settings.method.name} is not exported: the logits processors rank by the "
            "model's log-probabilities, with alpha 0"
        )
    carried = [FOR_TRANSFORMERS, FOR_VLLM]
    if isinstance(trained.model, SetModel):
        _write_set_tokens(folder / SET_TOKENS, trained.model)
        carried = []
        notes.append(
            f"no {TRIE} and no logits processors, as items are sets of vectors: {SET_TOKENS} has those of all items "
            "and the queries, but not the order and the masks in which the backbone reads them"
        )
    else:
        arrays: Any = trie_arrays(index)
        np.savez_compressed(folder / TRIE, **arrays)
        if isinstance(model, T5) or not end or is_inside(end, index):
            carried = [FOR_TRANSFORMERS]
            why = "vLLM runs no T5" if isinstance(model, T5) else "no token ids tell the end of a prompt from a title"
            notes.append(f"no {FOR_VLLM}: {why}")
    for name in carried:
        (folder / name).write_bytes((files(igd_jax) / "carried" / name).read_bytes())
    write_json(folder / RUN, config_json(config))
    write_json(folder / SETTINGS, _settings(session, index, trained, scoring, end=end, notes=notes))
    return notes


def prompt_end(session: Session) -> list[int]:
    """Token ids in which all prompts end, whatever title comes last."""
    n_items, prompts = len(session.prepared.titles), session.prompts

    def parts() -> Iterator[Ragged]:
        if prompts.has_words:
            yield prompts.of_texts([(title,) for title in _ODD_TITLES])
        for begin in range(0, n_items, _AT_ONCE):
            items = np.arange(begin, min(begin + _AT_ONCE, n_items), dtype=np.int32)
            rows = prompts.of_items(Ragged(items, np.arange(len(items) + 1)))
            yield rows.take(np.arange(len(items)))

    end: np.ndarray | None = None
    for rows in parts():
        width = int(rows.lengths.min()) if end is None else min(int(rows.lengths.min()), len(end))
        backwards = rows.ids[rows.start[1:, None] - 1 - np.arange(width)]
        same = (backwards == (backwards[0] if end is None else end[:width])).all(axis=0)
        end = backwards[0][: width if same.all() else int(same.argmin())]
    return [] if end is None else end[::-1].tolist()


def is_inside(end: list[int], index: ItemIndex) -> bool:
    """Whether a candidate contains the end of a prompt."""
    ids = index.catalog.tokens.take(np.flatnonzero(index.is_candidate)).ids
    n_places = max(len(ids) - len(end) + 1, 0)
    found = np.ones(n_places, bool)
    for offset, token in enumerate(end):
        found &= ids[offset : n_places + offset] == token
    return bool(found.any())


def _write_items(path: Path, session: Session, index: ItemIndex) -> None:
    """A line for each item of the catalogue."""
    number = np.cumsum(index.is_candidate) - 1
    row = np.where(index.candidates, number[index.catalog.row_of_item], -1)
    codes = session.prepared.texts.get("code")
    columns: dict[str, Sequence[Any]] = {
        "item": session.prepared.item_ids,
        "title": session.prepared.titles,
        "row": [number if number >= 0 else None for number in row.tolist()],
        "targets": session.index.counts.tolist(),
        "seen": session.seen.tolist(),
        **({} if codes is None else {"code": codes}),
    }
    items = (dict(zip(columns, item, strict=True)) for item in zip(*columns.values(), strict=True))
    append_lines(path, (json.dumps(item, ensure_ascii=False) for item in items))


def _write_set_tokens(path: Path, model: SetModel) -> None:
    """Tokens of all items [I Z D] and the queries [Z D], float32."""
    tokens, n_items = model.tokens, model.tokens.n_items
    parts = [tokens(jnp.arange(begin, min(begin + _AT_ONCE, n_items))) for begin in range(0, n_items, _AT_ONCE)]
    save_file({"item_tokens": np.concatenate(parts), "queries": np.asarray(model.queries[...])}, path)


def _settings(
    session: Session,
    index: ItemIndex,
    trained: Trained,
    scoring: dict[str, float],
    *,
    end: list[int],
    notes: list[str],
) -> dict[str, Any]:
    """Content of ``igd_jax.json``; `scoring` is that of `_scoring`."""
    decode = session.settings.decode
    options = decode_options(decode, index)
    words = vars(session.settings.data.template)
    shown = ("apart", "lead", "before", "after", "closing", "quote")
    prompt = {"bos": session.tokenizer.bos, **{name: words[name] for name in shown}}
    return {
        "format": FORMAT,
        "igd_jax": igd_jax.__version__,
        "eos": session.tokenizer.eos,
        "prompt": prompt | {"end": end, "room": room_of_prompts(session, index)},
        "decode": {
            **scoring,
            "normalize": decode.normalize,
            "length_penalty": decode.length_penalty,
            "num_beams": decode.num_beams,
            "top_k": decode.top_k,
            "max_new_tokens": options.max_length,
            "candidates": decode.candidates,
        },
        "method": session.settings.method.name,
        "step": trained.step,
        "data_fingerprint": session.prepared.meta["fingerprint"],
        "not_exported": notes,
    }


def _scoring(session: Session, index: ItemIndex, trained: Trained) -> tuple[dict[str, float], bool]:
    """How other programs score edges, by IGD's score of the model, and whether the run scores the model so.

    Of its temperatures, which divide log-probabilities, or logits before, the search of a method has one.
    """
    alpha, temperature = session.settings.decode.alpha, session.settings.decode.temperature
    if not session.method.beam_search:
        return {"alpha": alpha, "temperature": temperature, "softmax_temperature": 1.0}, True
    # The same score and temperature as of the run's engine, without chains or a layout of all titles.
    options = replace(decode_options(session.settings.decode, index), search=STEPWISE)
    engine: Any = session.method.engine(session.context(index), trained.model, options)
    before, score = engine.softmax_temperature, engine.edge_score
    after = temperature if before == 1.0 else 1.0
    while isinstance(score, Restricted | AmongChildren | Mixture):  # a mixture's source has a sentence of its own
        score = score.then
    expected = rebalanced(index.gain, alpha=alpha, temperature=after)
    is_igd = isinstance(score, Rebalanced) and all(
        map(np.array_equal, jax.tree.leaves(score), jax.tree.leaves(expected))
    )
    return {"alpha": alpha if is_igd else 0.0, "temperature": after, "softmax_temperature": before}, is_igd


def _losses(session: Session, *, dtype: str, is_adapter: bool) -> Iterator[str]:
    """One sentence about each part of the run that other programs will not have."""
    given, decode, method = session.settings.model, session.settings.decode, session.method
    if is_adapter:
        yield "adapters alone: igd_jax itself opens merged folders only"
    if given.quantize and is_adapter:
        yield f"the adapters were trained on weights of {given.quantize}; PEFT adds them to those of the folder"
    elif given.quantize:
        yield f"weights were held in {given.quantize}, and are written as what they stood for, in {dtype}"
    is_made = bool(given.lora_rank or given.quantize)
    if dtype == "bfloat16" and (dtype != given.param_dtype or is_made):
        what = "adapters" if is_adapter else "merged or quantised weights" if is_made else "weights"
        yield f"{what} are rounded from float32 to bfloat16, so scores and lists may differ from those of the run"
    if session.identifiers.texts is None:
        yield f"items are written in ids of their own, not in words: {FOR_TRANSFORMERS} cannot make prompts of them"
    if method.needs_collaborative:
        yield "scores of a collaborative source are not exported: the logits processors rank by the model alone"
    if method.inputs == "text" and not method.beam_search:
        yield f"{session.settings.method.name} grounds free text; the logits processors search the trie instead"
    if decode.allowed or decode.exclude_history:
        yield "config.decode.allowed and exclude_history are not exported: the logits processors allow all candidates"
    if decode.search == EXACT and method.beam_search:
        yield "config.decode.search is exact; elsewhere lists are those of a beam"


def _tokenizer_note(folder: Path, tokenizer: Tokenizer, titles: list[str]) -> list[str]:
    """A sentence if AutoTokenizer of transformers rebuilds the tokenizer of the folder into another one."""
    from transformers import AutoTokenizer  # slow to import

    some = titles[:: max(len(titles) // _TITLES_COMPARED, 1)]
    try:
        auto = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of whichever class it chooses
        return [f"AutoTokenizer of transformers does not open this tokenizer ({shortened(str(error))})"]
    theirs = auto(some, add_special_tokens=False)["input_ids"]
    differ = sum(a != b for a, b in zip(theirs, tokenizer.encode(some), strict=True))
    if not differ:
        return []
    return [
        f"AutoTokenizer of transformers rebuilds this tokenizer and changes the ids of {differ:,} of {len(some):,} "
        "titles; PreTrainedTokenizerFast.from_pretrained(FOLDER) gives those of the run"
    ]
