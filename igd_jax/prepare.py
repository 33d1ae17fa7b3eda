"""Convert raw data to a prepared folder.

python -m igd_jax.prepare --source=synthetic --output=DATA
python -m igd_jax.prepare --source=csv --input=my.csv --columns=user=userId,item=sku --output=DATA
python -m igd_jax.prepare --source=movielens --input=ml-100k --min_rating=4 --output=DATA
"""

import importlib
import inspect
import os
import pkgutil
import shlex
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import check_replaceable, local_path, owned
from igd_jax.core.log import say
from igd_jax.core.shown import shortened
from igd_jax.core.suggest import UnknownNameError
from igd_jax.data import sources
from igd_jax.data.assembling import tell_one_title
from igd_jax.data.interactions import DUPLICATES, SPLITTERS, to_prepared
from igd_jax.data.prepared import Prepared, headline, parts_of_code, save
from igd_jax.data.source_io import DELIMITERS

FLAGS = flags.FLAGS
_MOST = 1_000_000_000  # items, users or events; more are no small shop and would not fit into memory
_OF_ALL = ("source", "input", "output", "traceback")
"""Flags of this command that are no options of a source or of the split."""


def define_flags() -> None:
    """Define this program's flags; an option left out takes the default of the source or of the split."""
    flags.DEFINE_string("source", None, f"where the data comes from: {', '.join(source_names())}")
    flags.DEFINE_string("input", None, "the file or folder to read; huggingface: or an id of the Hugging Face Hub")
    flags.DEFINE_string("output", None, "the prepared folder to write; an older one of that name is replaced")
    flags.DEFINE_integer(
        "k_core", None, "fewest events per user and item; 0: any; default 0, of amazon 5", lower_bound=0
    )
    flags.DEFINE_enum("split", None, list(SPLITTERS), "how rows are split into train, valid and test; default time")
    flags.DEFINE_integer(
        "min_history", None, "fewest items of history per row of train: 1, or 0", lower_bound=0, upper_bound=1
    )
    flags.DEFINE_integer(
        "max_history", None, "most items of history per row; default 10", lower_bound=1, upper_bound=2**31 - 1
    )
    flags.DEFINE_integer(
        "max_eval_history", None, "--max_history of valid and test alone; 0: all", lower_bound=0, upper_bound=2**31 - 1
    )
    flags.DEFINE_string("columns", None, "csv, huggingface: your names of columns, as in user=userId,title=name")
    flags.DEFINE_enum("delimiter", None, list(DELIMITERS), "csv: what separates cells")
    flags.DEFINE_float("min_rating", None, "lowest rating of an event that is kept; left out: all are")
    flags.DEFINE_enum("duplicates", None, DUPLICATES, "what happens to repeats of an event: same user, item and time")
    flags.DEFINE_integer("min_items", None, "amazon2018: widen the time window until so many items are left")
    flags.DEFINE_integer("n_items", None, "synthetic: items", lower_bound=1, upper_bound=_MOST)
    flags.DEFINE_integer("n_users", None, "synthetic: users", lower_bound=1, upper_bound=_MOST)
    flags.DEFINE_integer("n_events", None, "synthetic: events", lower_bound=1, upper_bound=_MOST)
    flags.DEFINE_integer("seed", None, "synthetic: what the random numbers start from", lower_bound=0)
    flags.DEFINE_string("hf_subset", None, "huggingface: which subset (configuration) of the dataset")
    flags.DEFINE_string("hf_split", None, "huggingface: which split of the dataset, or several joined by +")


def options() -> list[flags.Flag]:
    """The flags of `define_flags` that are options of sources or of the split."""
    own = next(each for each in FLAGS.flags_by_module_dict().values() if FLAGS["source"] in each)
    return [flag for flag in own if flag.name not in _OF_ALL]


def source_names() -> list[str]:
    """Names of the modules in data/sources, which are the values of --source."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))


def prepare(source: str, *, path: Path | None, options: dict[str, Any]) -> Prepared:
    """Read a source and split it. The keyword arguments of its ``read`` are its options.

    A source that reads more than paths has a function ``elsewhere``, which says whether it can read an input that does
    not exist as a path.

    Args:
      source: name of the source.
      path: input; None if the source needs none.
      options: explicit options; others keep their defaults. A source of published splits takes only its own options,
        every other source also those of `to_prepared`.

    Raises:
      InputError: an unknown source, an option that it does not take, a missing input, or bad data.
    """
    if source not in (known := source_names()):
        raise UnknownNameError(f"there is no source {source!r}; choose one of {', '.join(known)}", source, known)
    module = importlib.import_module(f"{sources.__name__}.{source}")
    read, elsewhere = module.read, getattr(module, "elsewhere", None)
    own = _defaults(read)
    is_published = inspect.signature(read, eval_str=True).return_annotation is Prepared
    shared = {} if is_published else {name: value for name, value in _defaults(to_prepared).items() if name not in own}
    for name in options:
        if name not in own | shared:
            taken = ", ".join(f"--{option}" for option in own | shared) or "no options"
            raise InputError(f"--source={source} takes no --{name}; it takes {taken}")
    if path is None and inspect.signature(read).parameters["path"].default is inspect.Parameter.empty:
        raise InputError(f"--source={source} needs --input=FILE_OR_FOLDER")
    if path is not None:
        _check_input(path, elsewhere)
    own, shared = ({name: options.get(name, value) for name, value in part.items()} for part in (own, shared))
    result = read(path, **own)
    prepared = result if is_published else to_prepared(result, **shared)
    origin = {"source": source, "options": {"input": path and str(path), **own, **shared}}
    return replace(prepared, meta=origin | prepared.meta)


def _check_input(path: Path, elsewhere: Callable[[Path], bool] | None) -> None:
    """Raise `InputError` unless the path is a regular file or a folder, or the source can read it all the same."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not (elsewhere and elsewhere(path)):
            told = f"--input={shortened(str(path))} does not exist; expected the file or folder that --source reads"
            raise InputError(told) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--input={shortened(str(path))} cannot be read ({reason})") from None
    else:
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"--input={path} is neither a file nor a folder; expected what --source reads")


def _defaults(function: Callable) -> dict[str, Any]:
    """Defaults of the keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def describe(meta: dict[str, Any]) -> list[str]:
    """Lines printed about the data: counts, everything that was left out, and notes."""
    lines = [headline(meta)]
    lines += [f"  text            {count:>10,}  items with a {name}" for name, count in meta["items_with_text"].items()]
    lines += [f"  dropped or cut  {count:>10,}  {reason}" for reason, count in meta["dropped"].items()]
    lines += [f"  note            {fact}: {value}" for fact, value in meta["notes"].items()]
    first, last = meta["dates"]
    if first == last:
        lines.append(
            f"  note            all rows have one time, {first}, so that their order and the split are those of the"
            f" input: {sum(meta['rows'].values()):,}"
        )
    if meta["titles_shared_by_several_items"]:
        lines.append(
            f"  note            titles shared by several items, which are one candidate where titles are written:"
            f" {meta['titles_shared_by_several_items']:,}, of {meta['items_with_a_shared_title']:,} items"
        )
    if meta["train_rows_after_first_test_row"]:
        lines.append(
            f"  note            train rows later than the first test row (the future leaks into training):"
            f" {meta['train_rows_after_first_test_row']:,}"
        )
    return lines


def main() -> None:
    """Check the options, read, write, and print a summary."""
    for name in ("source", "output"):
        if not FLAGS[name].value:
            known = ", ".join(source_names())
            raise InputError(f"--{name} is missing; expected --source=NAME, one of {known}, and --output=FOLDER")
    output = Path(os.path.abspath(local_path(FLAGS.output, option="--output")))
    path = local_path(FLAGS.input, option="--input") if FLAGS.input else None
    try:
        check_replaceable(output)
    except OSError as error:
        raise InputError(f"--output={shortened(FLAGS.output)} cannot be written ({error.strerror})") from None
    given = {flag.name: flag.value for flag in options() if flag.value is not None}
    with owned(output):
        prepared = prepare(FLAGS.source, path=path, options=given)
        save(prepared, output)
    for line in [*describe(prepared.meta), *tell_one_title(prepared)]:
        say(line)
    say(f"wrote {FLAGS.output}")
    has_codes = all(map(parts_of_code, prepared.texts.get("code", [""])))
    config = "tiger" if has_codes else "igd"
    say(f"next: python -m igd_jax.train --config={config} --config.data.dir={shlex.quote(FLAGS.output)} --workdir=RUN")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
