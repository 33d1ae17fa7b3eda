"""The settings of a run: the config, checked at second zero and typed. Nothing below reads a ConfigDict.

`settings_from` reads the config into the dataclasses of `settings.sections` and fills in values that follow from other
fields (`decode.top_k` 0 is `decode.num_beams`). The first unusable value raises an `InputError` of one line, before any
data is read.

Every value is checked for every command, so a run with a bad `decode.alpha` is refused before it is trained. Only the
existence of paths is checked when they are needed, as they may not exist yet (the scores of another run) or no longer
(the tokenizer of a run that has a copy): see `TO_TRAIN` and `TO_DECODE`. Values that depend on data, weights or devices
are checked when those are read: whether a title fits `data.max_length`, whether there are `mesh.data` devices, and the
content of files other than a model's config.json.
"""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import get_type_hints

from ml_collections import ConfigDict

from igd_jax.core.errors import InputError
from igd_jax.core.shown import LONGEST_LINE, shortened, shown
from igd_jax.decoding.search import EXACT, JUMP
from igd_jax.identifiers.base import identifiers_class
from igd_jax.methods import load_method, method_class
from igd_jax.methods.base import Method
from igd_jax.models.attention import XLA
from igd_jax.models.config import LARGE
from igd_jax.models.load import config_of, kind_of
from igd_jax.settings.checks import KINDS, check_argument_size, check_names, check_type, read_section
from igd_jax.settings.sections import (
    AUTO,
    PADDED,
    TOKENIZER,
    WEIGHTS,
    DataSettings,
    DecodeSettings,
    EvalSettings,
    IdentifierSettings,
    LossSettings,
    MeshSettings,
    MethodSettings,
    ModelSettings,
    TokenizerSettings,
    TrainSettings,
)

TO_TRAIN = frozenset({"data.dir", "tokenizer.path", "model.path", "data.candidates", "decode.candidates"})
"""Paths that training needs, except ``tokenizer.path`` if the run in the workdir has a tokenizer already."""
TO_DECODE = TO_TRAIN | {"decode.allowed", "decode.collaborative"}
"""Paths that evaluating and recommending need."""

ONLY_OF_A_DECODER = {"lora_rank": 0, "dtype": "float32", "param_dtype": "float32", "quantize": "", "attention": XLA}
"""Fields of `config.model` that apply to decoders only, each with the value that other models require."""
ONLY_OF_A_BACKBONE = ONLY_OF_A_DECODER | {"remat": "dots"}
"""The same for methods whose model has no backbone at all."""

ONLY_OF_A_TRIE_SEARCH = {"normalize": "vocabulary", "search": JUMP}
"""Fields of `config.decode` that apply to methods that search the trie of titles, likewise."""


@dataclass(frozen=True)
class Settings:
    """All sections, with the config's names."""

    data: DataSettings
    tokenizer: TokenizerSettings
    identifiers: IdentifierSettings
    model: ModelSettings
    method: MethodSettings
    loss: LossSettings
    train: TrainSettings
    decode: DecodeSettings
    eval: EvalSettings
    mesh: MeshSettings

    @property
    def without_folders(self) -> "Settings":
        """The settings without the folders that may be given by URL: the path of a copy is another at every start."""
        return dataclasses.replace(
            self,
            data=dataclasses.replace(self.data, dir=""),
            tokenizer=dataclasses.replace(self.tokenizer, path=""),
            model=dataclasses.replace(self.model, path=""),
        )


def settings_from(config: ConfigDict, *, needs: Collection[str] = TO_DECODE) -> Settings:
    """Read, check and type a whole config.

    Args:
      config: the config.
      needs: fields whose paths must exist.

    Raises:
      InputError: a field is missing or unknown, a value is unusable, or two values contradict each other.
    """
    given, sections = config.to_dict(), get_type_hints(Settings)
    check_names("config", given, sections)
    read = {name: read_section(name, kind, given[name], needs) for name, kind in sections.items()}
    settings = _filled_in(Settings(**read))
    method = _method(settings.method)
    identifiers_class(settings.identifiers.name)
    if "model.path" in needs and settings.model.path:
        is_run = "tokenizer.path" not in needs  # whose checkpoints hold all weights if all are tuned
        if not is_run or settings.model.lora_rank:
            WEIGHTS("model.path", settings.model.path)
        _check_model_folder(settings, own_tokenizer=bool(read["tokenizer"].path) or is_run)
    kind = _kind(settings.model, needs)
    for line in _contradictions(settings, method, kind=kind):
        raise InputError(line)
    if settings.train.packing == AUTO and any(_against_packs(settings, method, kind=kind)):
        settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, packing=PADDED))
    return settings


def for_lists_alone(config: ConfigDict) -> ConfigDict:
    """A copy of the config for lists that are not measured: without those of `eval.ks` that exceed their length."""
    config = config.copy_and_resolve_references()
    with suppress(AttributeError, TypeError):  # of fields that are missing or unusable, which `settings_from` tells
        longest = config.decode.top_k or config.decode.num_beams
        if any(k > longest for k in config.eval.ks):
            config.eval.ks = tuple(k for k in config.eval.ks if k <= longest) or (1,)
    return config


def _filled_in(given: Settings) -> Settings:
    """The settings with values filled in that follow from other fields."""
    tokenizer, decode, ks = given.tokenizer, given.decode, given.eval.ks
    return dataclasses.replace(
        given,
        method=_typed_args(given.method),
        tokenizer=dataclasses.replace(tokenizer, path=tokenizer.path or given.model.path),
        decode=dataclasses.replace(
            decode,
            top_k=decode.top_k or decode.num_beams,
            candidates=decode.candidates or given.data.candidates,
        ),
        eval=dataclasses.replace(given.eval, ks=tuple(sorted(set(ks)))),
    )


def _typed_args(given: MethodSettings) -> MethodSettings:
    """The settings with arguments converted to the types of the method's constructor, and their sizes checked."""
    takes, args = get_type_hints(method_class(given.name).__init__), {}
    for name, value in given.args.items():
        kind = takes.get(name)
        if kind in KINDS:
            check_type(field := f"method.args.{name}", value, kind)
            check_argument_size(field, value)
        args[name] = kind(value) if kind in KINDS else value
    return MethodSettings(given.name, args)


def _method(given: MethodSettings) -> Method:
    """Make the method; its constructor checks its arguments."""
    try:
        return load_method(given.name, given.args)
    except InputError as error:
        raise InputError(shortened(str(error), LONGEST_LINE)) from None


def _check_model_folder(settings: Settings, *, own_tokenizer: bool) -> None:
    """Raise `InputError` unless a model folder is supported, and there is a tokenizer in it or in the config."""
    path = settings.model.path
    try:
        config_of(path)
    except InputError as error:
        raise InputError(shortened(f"config.model.path is {shown(path)}: {error}", LONGEST_LINE)) from None
    if not own_tokenizer:
        TOKENIZER("model.path", path)


def _kind(model: ModelSettings, needs: Collection[str]) -> str | None:
    """Kind of the backbone; None, not known, of a folder that is not needed."""
    if model.path and "model.path" not in needs:
        return None
    return kind_of(model.source or LARGE)


def _contradictions(settings: Settings, method: Method, *, kind: str | None) -> Iterator[str]:
    """Messages about values that are each valid but contradict each other; `kind` is that of the backbone, if known."""
    yield from _of_training(settings, method, kind=kind)
    yield from _of_lists(settings, method)
    yield from _of_the_model(settings, method, kind=kind)


def _of_training(settings: Settings, method: Method, *, kind: str | None) -> Iterator[str]:
    model, train, mesh = settings.model, settings.train, settings.mesh
    if train.global_batch_size % train.micro_batch_size:
        yield (
            f"config.train.global_batch_size is {train.global_batch_size}, no multiple of micro_batch_size "
            f"{train.micro_batch_size}; change one of them"
        )
    if train.packing not in (AUTO, PADDED):
        yield from _against_packs(settings, method, kind=kind)
    if not (train.num_steps or train.num_epochs):
        yield "config.train.num_epochs is 0, so config.train asks for 0 steps; raise num_epochs or num_steps"
    for field, size in (
        ("train.micro_batch_size", train.micro_batch_size),
        ("decode.batch_size", settings.decode.batch_size),
    ):
        if size % (parts := max(mesh.data, 1) * mesh.fsdp):
            yield f"config.{field} is {size}, which {parts} devices do not divide; use a multiple of {parts}"
    if model.quantize and not model.lora_rank:
        yield (
            f"config.model.quantize is {model.quantize!r}, but config.model.lora_rank is 0, and quantised weights are "
            "not tuned; raise the rank, or set quantize to ''"
        )
    if train.bfloat16 != "master" and model.param_dtype == "float32":
        yield (
            f"config.train.bfloat16 is {train.bfloat16!r}, but config.model.param_dtype is 'float32', so no weight is "
            "bfloat16; set that to bfloat16, or this to 'master'"
        )


def _against_packs(settings: Settings, method: Method, *, kind: str | None) -> Iterator[str]:
    """Messages about why rows cannot stand in packs."""
    packing, normalizer = settings.train.packing, settings.loss.normalizer
    if kind not in ("decoder", None) or method.inputs != "text" or not method.backbones:
        yield (
            f"config.train.packing is {packing!r}, but the model of {settings.method.name} does not read rows of "
            "text side by side (a T5 reads a prompt from both sides, others read items); set it to auto or none"
        )
    if normalizer != "global":
        yield (
            f"config.train.packing is {packing!r}, but config.loss.normalizer is {normalizer!r}, which divides by the "
            "weight of a fixed number of rows, and packs hold any number; use auto or none, or there global"
        )


def _of_lists(settings: Settings, method: Method) -> Iterator[str]:
    decode, ks = settings.decode, settings.eval.ks
    has_beams = method.beam_search and decode.search != EXACT
    if ks[-1] > decode.top_k:
        longer = "config.decode.top_k (0 is config.decode.num_beams)"
        if has_beams and decode.top_k == decode.num_beams:
            longer = "config.decode.num_beams (and config.decode.top_k, if that is not 0)"
        yield f"config.eval.ks is {shown(ks)}, but lists have a length of {decode.top_k}; raise {longer} or lower ks"
    if not method.beam_search:
        for field, only in ONLY_OF_A_TRIE_SEARCH.items():
            if (given := getattr(decode, field)) != only:
                yield (
                    f"config.decode.{field} is {given!r}, but {settings.method.name} does not search the trie of "
                    f"titles; set it to {only!r}"
                )
    if decode.top_k > decode.num_beams and has_beams:
        yield (
            f"config.decode.top_k is {decode.top_k}, but {decode.num_beams} beams give lists of that length; "
            "raise config.decode.num_beams or lower top_k"
        )
    if method.needs_collaborative and not decode.collaborative:
        yield (
            f"config.decode.collaborative is empty, but {settings.method.name} with these arguments needs scores of a "
            "collaborative source; give 'popularity', or the folder of a SASRec run"
        )


def _of_the_model(settings: Settings, method: Method, *, kind: str | None) -> Iterator[str]:
    model = settings.model
    if method.backbones and kind and kind not in method.backbones:
        yield (
            f"config.model names a {kind}, but {settings.method.name} with these arguments works on "
            f"{' or '.join(method.backbones)}; choose such a model"
        )
    if method.backbones and kind == "decoder" and model.path and model.config and kind_of(model.config) == "t5":
        yield (
            f"config.model.config is {model.config!r}, as in a recipe for a T5, but the model in config.model.path is "
            "a decoder; choose the folder of a T5 or the recipe for decoders, or set config.model.config to ''"
        )
    if model.dropout > 0 and (not method.backbones or kind not in ("t5", None)):
        yield (
            f"config.model.dropout is {model.dropout!r}, but the model of {settings.method.name} is no T5, the only "
            "one that this field is for; set it to -1"
        )
    if not method.backbones or kind not in ("decoder", None):
        for field, value in (ONLY_OF_A_DECODER if method.backbones else ONLY_OF_A_BACKBONE).items():
            if (given := getattr(model, field)) != value:
                yield (
                    f"config.model.{field} is {given!r}, but the model of {settings.method.name} has no decoder (a T5 "
                    f"and SASRec are tuned whole, in float32); set it to {value!r}"
                )
