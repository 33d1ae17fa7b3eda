"""A run, put together: from a resolved config to tokenizer, items, method and model. What the entry points share.

A run is described by its config and by the files of its workdir, nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples, item_examples, make_examples, title_tokens
from igd_jax.data.prepared import Prepared, Rows, headline, load
from igd_jax.data.prompts import render
from igd_jax.data.tokenizer import Tokenizer, describe, load_tokenizer, train_tokenizer
from igd_jax.items.index import ItemIndex, build_index, choose_candidates
from igd_jax.methods.base import Context, Method, load_method
from igd_jax.models.config import named
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder
from igd_jax.models.lora import LoRA, add_lora
from igd_jax.session.config_flags import FREE_TO_DECODE, check_workdir
from igd_jax.training.checkpoint import Checkpoints, frozen_fingerprint
from igd_jax.training.mesh import make_mesh

ONLY_FOR_A_DECODER = {"lora_rank": 0, "dtype": "float32", "param_dtype": "float32", "remat": False}
"""Fields of `config.model` that other models do not read, each with the value that suits them."""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclass(frozen=True)
class Run:
    """All but the weights.

    Attributes:
      counts: train targets an item, over the train rows in use.
      seen: items that those rows have as a target or in a history.
      index: over the candidates of `config.decode.candidates`.
      fingerprint: changes with the data, the tokenizer, and the train rows in use.
      cache: folder for what is dear to compute.
    """

    config: ConfigDict
    prepared: Prepared
    tokenizer: Tokenizer
    counts: Int[np.ndarray, " items"]
    seen: Bool[np.ndarray, " items"]
    index: ItemIndex
    method: Method
    mesh: Mesh
    fingerprint: str
    cache: Path

    @property
    def context(self) -> Context:
        """What the method may know."""
        data = self.config.data
        return Context(
            index=self.index,
            texts=self.prepared.texts,
            counts=self.counts,
            tokenizer=self.tokenizer,
            template=data.prompt,
            category=data.category,
            backbone=lambda: make_backbone(self),
            seed=self.config.train.seed,
            cache=self.cache,
            data_fingerprint=self.prepared.meta["fingerprint"],
        )

    def rows(self, split: str) -> Rows:
        """The rows in use of a split: all, or of train the first `data.max_examples`."""
        if split not in self.prepared.splits:
            raise InputError(f"there is no split {split!r}; expected one of {', '.join(self.prepared.splits)}")
        rows = self.prepared.splits[split]
        return first_rows(rows, self.config.data.max_examples) if split == "train" else rows

    def examples(self, rows: Rows) -> Examples:
        """Rows as the method reads them. Of text, say how many prompts the length limit cut."""
        history = Ragged(rows.history_items, rows.history_start)
        if self.method.inputs == "items":
            return item_examples(history, rows.target)
        limit = self.config.data.max_length
        titles = [[self.index.titles[item] for item in rows.history(row)] for row in range(len(rows))]
        examples = make_examples(self.context.prompts(titles), rows.target, self.index, max_length=limit)
        if examples.n_cut:
            say(f"{examples.n_cut:,} of {len(examples):,} prompts cut: with target over {limit} tokens")
        return examples


def set_up(config: ConfigDict, workdir: Workdir, *, free: Sequence[str] = FREE_TO_DECODE) -> Run:
    """Read the data, choose the tokenizer, build the items' trie; say what was found, merged and left out.

    Args:
      free: sections of the config that may differ from those of the run in the workdir.

    Raises:
      InputError: anything in the config that cannot be had.
    """
    check_workdir(config, workdir, free=free)
    if not config.data.dir:
        raise InputError("config.data.dir is not set; prepare a folder with igd_jax.prepare and pass it")
    method = load_method(config.method.name, config.method.args.to_dict())
    prepared = load(Path(config.data.dir))
    say(headline(prepared.meta))
    tokenizer = _tokenizer(config, workdir, prepared)
    say(describe(tokenizer))
    used = first_rows(prepared.splits["train"], config.data.max_examples)
    counts, seen = np.bincount(used.target, minlength=len(prepared.titles)), used.seen(len(prepared.titles))
    cache = workdir.path / "cache"
    item_tokens = title_tokens(prepared.titles, tokenizer, cache=cache)
    which, ids, titles = config.decode.candidates, prepared.item_ids, prepared.titles
    candidates = choose_candidates(which, ids, titles, counts=counts, seen=seen)
    index = build_index(prepared.titles, item_tokens, counts, candidates=candidates)
    say(_describe_index(which, candidates, index))
    mark = fingerprint(prepared.meta["fingerprint"], tokenizer.fingerprint, str(len(used)))
    mesh = make_mesh(data=config.mesh.data)
    return Run(config, prepared, tokenizer, counts, seen, index, method, mesh, mark, cache)


def _describe_index(which: str, candidates: np.ndarray, index: ItemIndex) -> str:
    lengths, merged = index.catalog.tokens.lengths, int(candidates.sum()) - len(index.catalog)
    n_targets = int((index.catalog.counts > 0).sum())
    share = 1.0 - len(index.trie.child) / max(len(index.trie.token) - 1, 1)
    return (
        f"candidates ({which}): {int(candidates.sum()):,} of {len(candidates):,} items, {len(index.catalog):,} titles "
        f"({merged:,} items merged into a title they share), {n_targets:,} of them train targets; "
        f"title tokens mean {lengths.mean():.1f}, longest {lengths.max()}; {share:.0%} of trie edges are forced"
    )


def first_rows(rows: Rows, limit: int) -> Rows:
    """The first `limit` rows; all of them when it is 0."""
    if limit < 0:
        raise InputError(f"config.data.max_examples is {limit}; expected a number of rows, or 0 for all")
    return rows.take(np.arange(min(limit, len(rows)))) if limit else rows


def evenly_spaced(n: int, limit: int, *, field: str) -> Int[np.ndarray, " chosen"]:
    """Numbers of `limit` rows of n, evenly spread, ascending; all n when it is 0 or more than there are.

    A split is in order of time, so its first rows are a few users of one day; these are of all days.

    Args:
      field: of the config, for the error of a limit below 0.
    """
    if limit < 0:
        raise InputError(f"config.{field} is {limit}; expected a number of rows, or 0 for all")
    return np.arange(limit) * n // limit if 0 < limit < n else np.arange(n)


def _tokenizer(config: ConfigDict, workdir: Workdir, prepared: Prepared) -> Tokenizer:
    """That of the run in the workdir; else that of the config; else one trained on the titles."""
    if workdir.config.is_file():
        return load_tokenizer(workdir.tokenizer)
    if given := config.tokenizer.path or config.model.path:
        return load_tokenizer(Path(given))
    template = "".join(render(config.data.prompt, [], category=config.data.category))
    texts = [template, *(title + "\n" for title in prepared.titles)]
    return train_tokenizer(texts, vocab_size=config.tokenizer.vocab_size)


def make_backbone(run: Run) -> Decoder:
    """The decoder before any training: weights of a Hugging Face folder, or random ones of a named size.

    With `model.lora_rank`, those are frozen, and adapters are trained that change nothing yet.

    Raises:
      InputError: unknown size or dtype, unusable weights or adapters, or fewer embeddings than the tokenizer has ids.
    """
    model = run.config.model
    lora = LoRA(model.lora_rank, model.lora_alpha, model.lora_targets)
    for field in ("dtype", "param_dtype"):
        if model[field] not in DTYPES:
            raise InputError(f"config.model.{field} is {model[field]!r}; expected one of {', '.join(DTYPES)}")
    dtypes = {"dtype": DTYPES[model.dtype], "param_dtype": DTYPES[model.param_dtype], "remat": model.remat}
    vocab_size = run.tokenizer.vocab_size
    if model.path:
        decoder = load_decoder(model.path, **dtypes)
        if decoder.config.vocab_size < vocab_size:
            raise InputError(
                f"the tokenizer has {vocab_size:,} ids but the model in {model.path} embeds "
                f"{decoder.config.vocab_size:,}; give the tokenizer that belongs to it"
            )
    else:
        config = named(model.config, vocab_size=vocab_size)
        decoder = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(run.config.train.seed), **dtypes))()
    if lora.rank:
        add_lora(decoder, lora, rngs=nnx.Rngs(run.config.train.seed))
    return decoder


def make_model(run: Run) -> nnx.Module:
    """The method's model before any training; `InputError` if what is asked for needs a decoder and it has none."""
    model = run.method.make_model(run.context)
    asked = run.config.model
    if not any(isinstance(module, Decoder) for _, module in nnx.iter_modules(model)):
        for field, value in ONLY_FOR_A_DECODER.items():
            if asked[field] != value:
                raise InputError(
                    f"config.model.{field} is {asked[field]!r}, but the model of {run.config.method.name} has no "
                    f"decoder (a T5 and SASRec are tuned whole, in float32); set it to {value!r}"
                )
    return model


def split_trainable(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Graph, variables that are trained (`nnx.Param`), and all others, which are frozen."""
    graph, *states = nnx.split(model, nnx.Param, ...)
    trained, frozen = states
    return graph, trained, frozen


def trained_model(run: Run, workdir: Workdir) -> nnx.Module:
    """The best checkpoint of the run in the workdir; without a run there, the Hugging Face folder of the config.

    The run may have been trained by another method than the one that is to decode it, as long as both tune one kind of
    model.

    Raises:
      InputError: neither is there, the checkpoint belongs to other data, or the methods' models differ.
    """
    if not workdir.config.is_file():
        is_backbone = type(run.method).make_model is Method.make_model
        if not (run.config.model.path and is_backbone):
            lacks = "config.model.path is not set" if is_backbone else f"{run.config.method.name} has to be trained"
            raise InputError(f"{workdir.path} holds no run and {lacks}: there is no model")
        say(f"no training: weights of {run.config.model.path}")
        return make_model(run)
    trained_by = ConfigDict(read_json(workdir.config)["method"])
    method = load_method(trained_by.name, trained_by.args.to_dict())
    if type(method).make_model is not type(run.method).make_model:
        raise InputError(
            f"{workdir.path} holds a model of {trained_by.name}, which {run.config.method.name} cannot decode; give "
            "the run of a method that tunes the same kind of model"
        )
    if trained_by.name == run.config.method.name:
        check_decoding_args(method, trained_by.args.to_dict(), run.config.method.args.to_dict())
    graph, params, frozen = split_trainable(method.make_model(run.context))
    check = partial(check_fingerprints, marks=fingerprints(run, frozen), run=run, workdir=workdir)
    checkpoints = Checkpoints(workdir.checkpoints)
    found = checkpoints.restore_best(params, check=check)
    checkpoints.close()
    if found is None:
        raise InputError(f"{workdir.path} has no checkpoint yet; let igd_jax.train reach its first evaluation")
    params, progress = found
    say(f"checkpoint of step {progress['best_step']}, valid loss {progress['best_loss']:.4f}")
    return nnx.merge(graph, params, frozen)


def check_decoding_args(method: Method, trained: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `InputError` when an argument that only training reads differs from the run's."""
    differ = sorted(name for name in set(trained) | set(given) if trained.get(name) != given.get(name))
    if fixed := [name for name in differ if name not in method.decoding_args]:
        raise InputError(
            f"config.method.args.{fixed[0]} is {given.get(fixed[0])!r}, but the run was trained with "
            f"{trained.get(fixed[0])!r}, and decoding does not read it; leave it as it is, or train another run"
        )


def fingerprints(run: Run, frozen: Any) -> dict[str, str]:
    """What a checkpoint must fit: the data with the tokenizer, and the frozen variables of the model."""
    return {"fingerprint": run.fingerprint, "frozen": frozen_fingerprint(frozen)}


def check_fingerprints(progress: dict[str, Any], *, marks: dict[str, str], run: Run, workdir: Workdir) -> None:
    """Raise `InputError` when a checkpoint was trained with other data, tokenizer or frozen arrays."""
    if progress["fingerprint"] != marks["fingerprint"]:
        raise InputError(
            f"{workdir.path} was trained on other data or with another tokenizer than {run.config.data.dir} gives now; "
            "use the data it was trained on, or another --workdir"
        )
    if progress.get("frozen", marks["frozen"]) != marks["frozen"]:
        raise InputError(
            f"{workdir.path} was trained on top of other frozen weights, item vectors or item features than the files "
            "that its config names hold now; restore those files, or train in another --workdir"
        )
