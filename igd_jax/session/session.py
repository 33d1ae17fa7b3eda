"""Set-up of a run from checked settings: tokenizer, identifiers, items and method; everything but the weights.

A run is determined by its config and the files of its workdir.
"""

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from igd_jax.core import hosts
from igd_jax.core.allowed import CANDIDATES
from igd_jax.core.compilation import cache_compilations
from igd_jax.core.devices import unused_accelerator
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.shown import shown
from igd_jax.data.examples import Examples, item_examples, make_examples, room_beside
from igd_jax.data.prepared import Prepared, Rows, headline, load
from igd_jax.data.prompts import Prompts
from igd_jax.data.tokenizer import Tokenizer, describe
from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.queries import evenly_spaced, make_queries
from igd_jax.identifiers.base import Source
from igd_jax.items.candidates import choose_candidates
from igd_jax.items.identifiers import Identifiers
from igd_jax.items.index import ItemIndex, build_index, describe_index
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, ItemsMethod, Method
from igd_jax.models.load import config_of
from igd_jax.session.backbone import make_backbone
from igd_jax.session.identifiers import make_identifiers
from igd_jax.session.tokenizer import choose_tokenizer
from igd_jax.settings.config_flags import FREE_TO_DECODE, check_workdir, config_json
from igd_jax.settings.settings import TO_DECODE, Settings, settings_from
from igd_jax.settings.sizing import check_positions, sized
from igd_jax.training.mesh import make_mesh


@dataclass(frozen=True)
class Session:
    """A run without its weights.

    Attributes:
      settings: checked config.
      prepared: content of the prepared folder.
      tokenizer: tokenizer of the run.
      identifiers: identifiers of the items.
      prompts: prompts around histories.
      seen: mask of the items in the train rows in use, as a target or in a history, or beside all (`Prepared.seen`).
      index: items, with the candidates of training, and their counts over those rows.
      method: method of training and decoding.
      mesh: devices.
      fingerprint: text that changes with data, tokenizer, identifiers, the train rows in use, and a file of candidates.
      cache: folder for results of long computations.
    """

    settings: Settings
    prepared: Prepared
    tokenizer: Tokenizer
    identifiers: Identifiers
    prompts: Prompts
    seen: Bool[np.ndarray, " items"]
    index: ItemIndex
    method: Method
    mesh: Mesh
    fingerprint: str
    cache: Path

    def context(self, index: ItemIndex) -> Context:
        """Context of the method, with the candidates of `index`."""
        seed, n_ids = self.settings.train.seed, self.identifiers.vocab_size
        return Context(
            index=index,
            texts=self.prepared.words,
            tokenizer=self.tokenizer,
            prompts=self.prompts,
            backbone=partial(
                make_backbone, self.settings.model, self.tokenizer, vocab_size=n_ids, seed=seed, mesh=self.mesh
            ),
            seed=seed,
            cache=self.cache,
            data_fingerprint=self.prepared.meta["fingerprint"],
            mesh=self.mesh,
        )

    @cached_property
    def decode_index(self) -> ItemIndex:
        """Items with the candidates of decoding, which are printed, once, if they differ from those of training."""
        which = self.settings.decode.candidates
        if which == self.settings.data.candidates:
            return self.index
        ids, titles, option = self.prepared.item_ids, self.prepared.titles, "config.decode.candidates"
        candidates = choose_candidates(which, ids, titles, counts=self.index.counts, seen=self.seen, option=option)
        index = self.index.with_candidates(candidates)
        say(describe_index(which, index, identifiers=self.settings.identifiers.name))
        return index

    @cached_property
    def most_items(self) -> int | float:
        """Items that a history may have where the method reads items; longer ones lose their oldest."""
        if not isinstance(self.method, ItemsMethod):
            return math.inf
        model = self.settings.model
        return self.method.most_items(self.tokenizer, config_of(model.source).max_positions)

    @property
    def catalogue(self) -> CatalogueRows:
        """The catalogue as metrics see it, with the candidates of decoding."""
        row_of_item, candidates = self.index.catalog.row_of_item, self.decode_index.candidates
        return CatalogueRows.of_items(row_of_item, candidates=candidates, counts=self.index.counts, seen=self.seen)

    def rows(self, split: str) -> Rows:
        """Rows of a split that are in use, in its order: all, except of train (`rows_in_use`)."""
        return train_rows(self.prepared, self.settings) if split == "train" else self.prepared.splits[split]

    def watched_rows(self) -> Rows:
        """Rows of valid whose loss is watched in training: all or the first of each user, or some of these."""
        rows, train = self.prepared.splits["valid"], self.settings.train
        queries = make_queries(
            train.eval_protocol,
            user=rows.user,
            timestamp=rows.timestamp,
            target=rows.target,
            max_examples=train.eval_examples,
        )
        return rows.take(queries.row)

    def examples(self, rows: Rows, *, split: str = "") -> Examples:
        """Rows in the form that the method reads, with their targets. Prints how many prompts were cut, and of what."""
        if self.method.inputs == "items":
            examples = item_examples(rows.history, rows.target, room=self.most_items)
            what, over = "histories", f"over {self.most_items} items"
        else:
            limit = self.settings.data.max_length
            room = room_beside(rows.target, self.index, max_length=limit)
            examples = make_examples(self.prompts.of_items(rows.history), target=rows.target, room=room)
            what, over = "prompts", f"with target over {limit} tokens"
        if n_cut := int(examples.is_cut.sum()):
            say(f"{n_cut:,} of {len(examples):,} {what}{f' of {split}' if split else ''} cut: {over}")
        return examples

    def check_targets(self) -> None:
        """Raise `InputError` if no candidate of training is a train target: then no target is on the trie."""
        if not self.index.catalog.counts[self.index.is_candidate].any():
            which = shown(self.settings.data.candidates)
            raise InputError(
                f"config.data.candidates is {which}, and none of these is a train target, so no token has a gain; "
                "expected some that are, such as 'catalogue'; config.decode.candidates may still name the others"
            )


def set_up(settings: Settings, workdir: Workdir) -> Session:
    """Read the data, choose tokenizer and identifiers, and build the items' trie; prints counts and merged items.

    Raises:
      InputError: data, tokenizer, identifiers or candidates are missing or unusable.
    """
    cache_compilations()
    if not os.environ.get("JAX_PLATFORMS") and (unused := unused_accelerator()):
        say(f"note: {unused}")
    method = load_method(settings.method.name, settings.method.args)
    settings = sized(settings, method, workdir)
    check_positions(settings, method)
    mesh = make_mesh(**vars(settings.mesh))
    say(f"reading {settings.data.dir}")
    prepared = load(Path(settings.data.dir))
    say(headline(prepared.meta))
    tokenizer = choose_tokenizer(settings, workdir, prepared)
    used = train_rows(prepared, settings)
    n_items = len(prepared.titles)
    counts, seen = np.bincount(used.target, minlength=n_items), prepared.seen(used)
    candidates = choose_candidates(
        settings.data.candidates,
        prepared.item_ids,
        prepared.titles,
        counts=counts,
        seen=seen,
        option="config.data.candidates",
    )
    whole = used is prepared.splits["train"]
    facts = ItemFacts(counts, seen, candidates, str(len(used)) if whole else rows_in_use(prepared, settings))
    tokens = token_folder(Path(settings.data.dir), workdir)
    return put_together(settings, method, prepared, tokenizer, facts, mesh, tokens, workdir.cache)


class ItemFacts(NamedTuple):
    """What the train rows in use say of the items.

    Attributes:
      counts: number of train targets per item.
      seen: as in `Session`.
      candidates: mask of the items that may be recommended.
      mark: text or numbers that change with the rows in use.
    """

    counts: Int[np.ndarray, " items"]
    seen: Bool[np.ndarray, " items"]
    candidates: Bool[np.ndarray, " items"]
    mark: str | Int[np.ndarray, " used"]


def put_together(
    settings: Settings,
    method: Method,
    prepared: Prepared,
    tokenizer: Tokenizer,
    facts: ItemFacts,
    mesh: Mesh,
    tokens: Path,
    cache: Path,
) -> Session:
    """Choose identifiers and build the items' trie; prints counts and merged items. See `Session`.

    Args:
      tokens: folder of the cache of tokenised text.
    """
    say(describe(tokenizer))
    template = settings.data.template
    source = Source(prepared.item_ids, prepared.titles, prepared.texts, tokenizer, tokens, template.around)
    identifiers, item_tokens, others = make_identifiers(settings.identifiers.name, source)
    index = build_index(prepared.titles, item_tokens, facts.counts, candidates=facts.candidates)
    say(describe_index(settings.data.candidates, index, identifiers=settings.identifiers.name))
    return Session(
        settings=settings,
        prepared=prepared,
        tokenizer=replace(tokenizer, names=identifiers.names) if identifiers.names else tokenizer,
        identifiers=identifiers,
        prompts=Prompts(template, tokenizer, identifiers, tokens),
        seen=facts.seen,
        index=index,
        method=method,
        mesh=mesh,
        fingerprint=fingerprint(
            prepared.meta["fingerprint"],
            tokenizer.fingerprint,
            settings.identifiers.name,
            item_tokens.ids,
            item_tokens.start,
            facts.mark,
            *([] if settings.data.candidates in CANDIDATES else [facts.candidates]),
            *others,
        ),
        cache=cache,
    )


def set_up_to_decode(config: ConfigDict, workdir: Workdir) -> Session:
    """Set up decoding of the run in the workdir, or of a model folder without training.

    The config may differ from that of the run in how it is decoded.

    Raises:
      InputError: the config is bad, or that of another run.
    """
    needs = TO_DECODE - {"tokenizer.path"} if workdir.config.is_file() else TO_DECODE  # a run has a tokenizer
    settings = settings_from(config, needs=needs)
    check_workdir(config, workdir, free=FREE_TO_DECODE)
    session = set_up(settings, workdir)
    check_processes(config, session)
    return session


def check_processes(config: ConfigDict, session: Session) -> None:
    """Raise `InputError`, in all processes of a run, unless they have the same code, config and data."""
    if jax.process_count() == 1:
        return
    told = environment()
    code = {"python": told["python"], **told["packages"], "commit": told["commit"]}
    hosts.check_alike(code=code, config=config_json(config), data={"fingerprint": session.fingerprint})


def rows_in_use(prepared: Prepared, settings: Settings) -> Int[np.ndarray, " used"]:
    """Numbers of the train rows that there are for the run, ascending: `data.max_examples`, evenly spread, or all."""
    return evenly_spaced(len(prepared.splits["train"]), settings.data.max_examples)


def train_rows(prepared: Prepared, settings: Settings) -> Rows:
    """The train rows that there are for the run; not a copy if they are all."""
    rows, in_use = prepared.splits["train"], rows_in_use(prepared, settings)
    return rows if len(in_use) == len(rows) else rows.take(in_use)


def token_folder(data: Path, workdir: Workdir) -> Path:
    """Folder of token rows, for all runs on the data: ``DATA.tokens``, or the run's cache if that cannot be written."""
    data = Path(os.path.abspath(data))
    folder = data.with_name(f"{data.name}.tokens")
    is_writable = os.access(folder if os.path.lexists(folder) else data.parent, os.W_OK | os.X_OK)
    return folder if is_writable else workdir.cache
