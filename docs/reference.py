"""Pages made from the code whenever the pages are built (a hook of mkdocs, see mkdocs.yml), and figures from results.

`PAGES` says which pages there are. None is kept in a file, so they cannot differ from the code. In all others, figures
of benchmarks/results stand between comments, which readers do not see, ``<!--NAME.json:FIELD-->3.25<!---->``; a test
compares, and ``python -m docs.reference`` writes them anew.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from absl import flags
from ml_collections import ConfigDict

import igd_jax
from igd_jax.__main__ import commands
from igd_jax.settings.experiments import DEFAULTS, described, read_config

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

EXPERIMENTS = ("bigrec", "cft", "d3", "igd", "msl:adaptive", "sasrec", "setrec", "sft")
"""One for each method, with all of its arguments."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages to those of the folder; mkdocs calls this."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def with_figures(markdown: str) -> str:
    """The text with the figures of the results between their comments.

    Raises:
      KeyError: a results file has no such field.
      FileNotFoundError: there is no such results file.
    """
    return re.sub(
        r"<!--(\w+\.json):(.+?)-->.*?<!---->",
        lambda found: f"<!--{found[1]}:{found[2]}-->{_figure(found[1], found[2])}<!---->",
        markdown,
    )


def _figure(file: str, field: str) -> str:
    found = reduce(lambda part, key: part[key], field.split("."), json.loads((RESULTS / file).read_text("utf-8")))
    if isinstance(found, int):
        return f"{found:,}"
    return f"{found:.3g}" if isinstance(found, float) else str(found)


def commands_page() -> str:
    """Every command with what it says of itself and its options."""
    parts = [
        "# Commands",
        "`igd COMMAND ...` and `python -m igd_jax.COMMAND ...` are the same. Options are written `--NAME=VALUE`. Every "
        "command also takes `--help` and `--traceback`, the whole traceback of an error, and ends with one of these "
        "[exit codes](../design.md#exit-codes). Defaults of `prepare` are those of each "
        "[source](../data.md#sources).",
    ]
    for name in commands():
        module = importlib.import_module(f"igd_jax.{name}")
        parts += [f"## {name}", _text(module.__doc__ or ""), _table("option", "default", "meaning", _options(name))]
    return "\n\n".join(parts) + "\n"


def config_page() -> str:
    """Every field of a config, and the arguments of each experiment's method."""
    parts = [
        "# Config",
        "An experiment is a file with a `get_config()`, such as those of `configs/`; all start from the values below; "
        "`--config=igd` names a shipped one. Each field is an option, `--config.SECTION.FIELD=VALUE`. "
        "`python -m igd_jax.train --config=igd:books --help_config` prints this list with the values of an experiment.",
    ]
    config = read_config(DEFAULTS)
    for section in config:
        if section != "method":
            rows = _fields(described(ConfigDict({section: config[section]}), DEFAULTS), prefix=f"{section}.")
            parts += [f"## {section}", _table("field", "default", "meaning", rows)]
    parts += ["## method", "`method.name` is a file of `igd_jax/methods`, and `method.args` are its arguments:"]
    for name in EXPERIMENTS:
        method = ConfigDict({"method": read_config(name).method})
        rows = _fields(described(method, DEFAULTS, name), prefix="method.args.")
        parts += [f"### {name}", _table("argument", "value", "meaning", rows)]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """The names that the package exports, with their docstrings."""
    names = sorted(igd_jax.__all__)
    modules = [f".{igd_jax._MODULES[name]}" if name in igd_jax._MODULES else "" for name in names]
    places = [f"igd_jax{module}.{name}" for module, name in zip(modules, names, strict=True)]
    blocks = [f"::: {place}\n    options:\n      heading_level: 2" for place in places]
    return "\n\n".join(["# Python", "What `import igd_jax` offers. Everything else may change.", *blocks]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/config.md": config_page,
    "reference/python.md": python_page,
}


def _text(docstring: str) -> str:
    """A docstring as Markdown: indented blocks are code already, and so are lines that begin with a command."""
    return re.sub(r"(?m)^(?:python -m .*\n?)+", lambda found: f"```bash\n{found[0].rstrip()}\n```\n", docstring.strip())


def _options(name: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each option that a command defines itself, or shares with others."""
    module, before = importlib.import_module(f"igd_jax.{name}"), set(flags.FLAGS)
    with mock.patch.object(sys, "argv", [name]):
        module.define_flags()
    for option in sorted(set(flags.FLAGS) - before):
        flag = flags.FLAGS[option]
        meaning = re.sub(r"^<(.*?)>: ", lambda choices: f"{choices[1].replace('|', ', ')}: ", flag.help)
        is_required = any("must have a value" in validator.message for validator in flag.validators)
        default = "" if flag.default in (None, [], "") else f"`{flag.default}`"
        yield option, "required" if is_required else default, meaning
        delattr(flags.FLAGS, option)


def _fields(lines: Iterator[str], *, prefix: str) -> Iterator[tuple[str, str, str]]:
    """The parts of the lines of `described` whose fields begin so."""
    for line in lines:
        option, _, comment = line.partition("  # ")
        field, _, value = option.removeprefix("--config.").partition("=")
        if field.startswith(prefix):
            yield field.removeprefix("method.args."), f"`{value}`" if value != "''" else "", comment.replace(" # ", " ")


def _table(*columns: str | Iterator[tuple[str, str, str]]) -> str:
    """A table of Markdown, names and values as code."""
    *heads, rows = columns
    lines = [f"| {' | '.join(map(str, heads))} |", "|---|---|---|"]
    for name, value, meaning in rows:
        lines.append(f"| `{name}` | {value} | {' '.join(meaning.split()).replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for path in Path(__file__).parent.rglob("*.md"):
        path.write_text(with_figures(path.read_text("utf-8")), "utf-8")
