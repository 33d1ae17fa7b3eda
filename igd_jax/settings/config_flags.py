"""The config of a run: from an experiment file or the run in a workdir, with fields changed on the command line."""

import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from igd_jax.core.errors import InputError, bad_flags_told
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.log import say
from igd_jax.core.shown import shown
from igd_jax.evaluation.origin import NO_RESULT, WHERE_IT_RUNS, how_rows_lie
from igd_jax.methods import with_defaults
from igd_jax.settings.config_grid import check_field
from igd_jax.settings.experiments import DEFAULTS, described, read_config

FREE_TO_CHANGE = ("decode", "eval", *WHERE_IT_RUNS)
"""Sections and fields of the config that may differ from that of the run in a workdir, beside `how_rows_lie`."""
FREE_TO_RESUME = (
    *(*FREE_TO_CHANGE, *NO_RESULT),
    *("train.num_steps", "train.num_epochs", "train.patience", "train.eval_every_steps", "train.eval_examples"),
)
"""Sections and fields that may differ when training is resumed: also durations and intervals."""
FREE_TO_DECODE = (*FREE_TO_CHANGE, "method", "train.micro_batch_size", "model.path")
"""Sections and fields that may differ when the run is only decoded (see `decode_as`); also where its first model lies,
as the checkpoint has all weights, or knows those beneath adapters by fingerprint."""

HOW_TO_SCORE = ("alpha", "length_penalty", "temperature", "collaborative")
"""Fields of `config.decode` that belong to a method, unlike the candidates and the length of lists."""

_FIELD = re.compile(r"--?(?:no)?config\.([^=]+)")
"""An option for a field of the config."""
_HELP = (
    "Experiment: the name of a shipped one, such as igd or igd:books, or a file, FILE.py or FILE.py:ARGUMENT; default "
    "with --workdir that of its run. Each field is an option of its own, --config.SECTION.FIELD=VALUE."
)

flags.disclaim_key_flags()  # options defined here belong to the commands, so that --help of each shows them


def load_config(config: ConfigDict | None, workdir: Workdir) -> ConfigDict:
    """The given config, or if None, that of the run in the workdir."""
    if config is not None:
        return config
    if not workdir.config.is_file():
        raise InputError(f"{workdir.path} holds no run (no config.json in it); train one there, or give --config")
    return run_config(workdir)


def required_config() -> ConfigDict:
    """The config that ``--config`` names, or that of the run in the workdir; `InputError` if there is neither."""
    if not flags.FLAGS.config:
        raise InputError("--config is not set; start with --config=igd or --config=quickstart")
    return flags.FLAGS.config


def run_config(workdir: Workdir) -> ConfigDict:
    """The config of the run in a workdir; see `config_at`."""
    return config_at(workdir.config)


def config_at(path: Path) -> ConfigDict:
    """Read the config.json of a run, or of an evaluation, apart from how values were chosen.

    Fields that did not exist yet have the values of `experiments.DEFAULTS`.

    Raises:
      InputError: the file is missing, or was altered and is not a config.
    """
    config = read_json(path)
    if not isinstance(config, dict) or not all(isinstance(fields, dict) for fields in config.values()):
        raise InputError(f"{path} holds no sections with fields, as a run writes them; restore that file")
    config.pop("chosen", None)
    for section, fields in config_json(read_config(DEFAULTS)).items():
        config[section] = fields | config.get(section, {})
    try:
        return ConfigDict({section: _with_tuples(fields) for section, fields in config.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # such as a name with a dot
        raise InputError(f"{path} holds no config of a run ({error}); restore that file") from None


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """A section with its lists converted to tuples, for which flags accept texts such as ``(1,5)``."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


class _ExperimentParser(flags.ArgumentParser):
    """Reads the experiment that ``--config`` names."""

    def parse(self, argument: str) -> ConfigDict:
        config = read_config(argument).lock()
        _check_fields_given(config)
        return config


def define_config_flag() -> None:
    """Define ``--config``: an experiment if the command line names one, else the config of the run in its workdir.

    So ``--config.decode.alpha=0.2`` overrides a field in either case, also before ``--config``. Unknown fields are
    errors. ``--help_config`` prints all fields of that config, and exits.
    """
    with bad_flags_told():
        given, folder, other = (_option(name) for name in ("--config", "--workdir", "--decode_as"))
        config = None
        if given is None and folder is not None and Workdir(folder).config.is_file():
            config = run_config(Workdir(folder))
        if other is not None:
            if config is None:
                raise InputError("--decode_as is given, but no --workdir of a run alone; it says how to decode a run")
            decode_as(config, read_config(other, option="decode_as"))
        if "--help_config" in sys.argv[1:]:  # options that are required are not missed
            shown_config = _as_changed(config or read_config(given or DEFAULTS))
            say("\n".join(described(shown_config, DEFAULTS, given or DEFAULTS)))
            sys.exit(0)
        flags.DEFINE_bool("help_config", False, "Print every field of the config: its value, unit and meaning.")
        if config is not None:
            _check_fields_given(config)
            config_flags.DEFINE_config_dict("config", config, _HELP, lock_config=True)
            flags.declare_key_flag("config")
            flags.FLAGS["config"].default_as_str = ""  # all fields and their values
            return
        if given is None and any(map(_FIELD.match, _words())):
            if folder is not None:
                load_config(None, Workdir(folder))  # which tells that there is none
            raise InputError("--config.FIELD is given, but neither --config=FILE nor the --workdir of a run")
        if given is not None:
            _put_config_first(given)
        config_flags.DEFINE_config_file("config", None, _HELP)
        flags.FLAGS["config"].parser = _ExperimentParser()


def define_decode_as_flag() -> None:
    """Define ``--decode_as``, which `define_config_flag` reads."""
    flags.DEFINE_string("decode_as", None, "Experiment, named as for --config, whose method decodes the run.")


def decode_as(config: ConfigDict, other: ConfigDict) -> None:
    """Set the method of another experiment for decoding: model, candidates and list length stay, scores change."""
    config.method = other.method
    for field in HOW_TO_SCORE:
        config.decode[field] = other.decode[field]


def check_workdir(config: ConfigDict, workdir: Workdir, *, free: Sequence[str] = FREE_TO_CHANGE) -> None:
    """Raise `InputError` if the workdir has a run of another config; sections and fields in `free` may differ."""
    if not workdir.config.is_file():
        return
    if differ := differing(run_config(workdir), config, free=free):
        raise InputError(
            f"{workdir.path} holds a run of another config, {', '.join(differ)}; leave them as they are there, or name "
            "another --workdir"
        )


def differing(first: ConfigDict, second: ConfigDict, *, free: Sequence[str]) -> list[str]:
    """Fields that differ between two configs and their values, apart from those in `free`, and `how_rows_lie`.

    An empty `config.model.config` of the second stands for that of the first.
    """
    old, new = (_with_all_args(config_json(each)) for each in (first, second))
    new["model"]["config"] = new["model"]["config"] or old["model"]["config"]
    free = (*free, *(f"train.{name}" for name in how_rows_lie(old)))
    pairs = {
        f"{section}.{field}": (old.get(section, {}).get(field), new.get(section, {}).get(field))
        for section in sorted(set(old) | set(new))
        if section not in free
        for field in sorted(set(old.get(section, {})) | set(new.get(section, {})))
    }
    return [
        line for field, (there, here) in pairs.items() if field not in free for line in _difference(field, there, here)
    ]


def _difference(field: str, there: Any, here: Any) -> Iterator[str]:
    """The two values of a field, or of each of its arguments, where they differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted(set(there) | set(here)):
            yield from _difference(f"{field}.{name}", there.get(name), here.get(name))
    elif there != here:
        yield f"{field}: {shown(there)} there, {shown(here)} here"


def _with_all_args(config: Any) -> Any:
    """A config in JSON values whose method has all its arguments, so that a run may be older than some of them."""
    method = config.get("method", {})
    if isinstance(method.get("name"), str) and isinstance(method.get("args"), dict):
        method["args"] = with_defaults(method["name"], method["args"])
    return config


def config_json(config: ConfigDict) -> Any:
    """A config as JSON values."""
    return json.loads(config.to_json())


def _as_changed(config: ConfigDict) -> ConfigDict:
    """The config with the fields that the command line gives, before flags are parsed."""
    _check_fields_given(config)
    words = [sys.argv[0], *(word for word in _words() if word.partition("=")[0] not in ("--config", "-config"))]
    own = flags.FlagValues()
    own.set_gnu_getopt()
    config_flags.DEFINE_config_dict("config", config, flag_values=own, sys_argv=words)
    own(words, known_only=True)
    return own.config


def _check_fields_given(config: ConfigDict) -> None:
    """Raise `InputError` if an option ``--config.SECTION.FIELD`` names no field of the config."""
    for word in _words():
        if found := _FIELD.match(word):
            if found[1] in flags.FLAGS and found[1] not in config:
                raise InputError(
                    f"the config has no field {found[1]}, which is an option of its own; give --{found[1]}"
                )
            check_field(found[1], config)


def _words() -> list[str]:
    """The command line before flags are parsed, up to what is not an option."""
    return [*itertools.takewhile(lambda word: word != "--", sys.argv[1:])]


def _put_config_first(given: str) -> None:
    """Give ``--config`` once on the command line, before its fields, as ml_collections needs; all else stays."""
    words, replaced = _words(), set[int]()
    for place, word in enumerate(words):
        name, is_assigned, _ = word.partition("=")
        if name in ("--config", "-config"):
            replaced |= {place} if is_assigned else {place, place + 1}
    rest = [word for place, word in enumerate(words) if place not in replaced]
    sys.argv[1 : len(words) + 1] = [f"--config={given}", *rest]


def _option(name: str) -> str | None:
    """Value of an option before flags are parsed; as absl, the last one counts, and one dash does as well as two."""
    value, words = None, _words()
    for word, following in itertools.zip_longest(words, words[1:]):
        given, is_assigned, assigned = word.partition("=")
        if given in (name, name.removeprefix("-")):
            value = assigned if is_assigned else following
    return value
