"""All commands under one name: ``igd COMMAND ...``, or ``python -m igd_jax COMMAND ...``."""

import ast
import pkgutil
import runpy
import sys
from pathlib import Path

import igd_jax
from igd_jax.core import errors
from igd_jax.core.log import say
from igd_jax.core.suggest import UnknownNameError


def commands() -> dict[str, str]:
    """Each command, and the first line that its module says of itself."""
    folder = Path(igd_jax.__file__).parent
    names = [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.ispkg]
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in names if name[0] != "_"}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in sources.items()}


def main() -> None:
    """Start the command that the first argument names, as ``python -m igd_jax.COMMAND`` does."""
    known, (name, *rest) = commands(), sys.argv[1:] or [""]
    if name in ("--help", "-h", "--version"):
        say(f"igd_jax {igd_jax.__version__}" if name == "--version" else _help(known))
    elif name not in known:
        what = f"unknown command {name!r}" if name else "no command"
        told = f"{what}; expected one of {', '.join(known)}, such as: igd train --help"
        errors.end(UnknownNameError(told, name, known))
    else:
        sys.argv[1:] = rest
        runpy.run_module(f"igd_jax.{name}", run_name="__main__", alter_sys=True)


def _help(known: dict[str, str]) -> str:
    width = max(map(len, known))
    return "\n".join(
        [
            "Recommend the next item by writing its title: igd COMMAND --OPTION=VALUE ...",
            "",
            *(f"  {name:{width}}  {line}" for name, line in known.items()),
            "",
            "igd COMMAND --help shows options and examples; igd train --help_config, every field of a config.",
            "python -m igd_jax.COMMAND is the same.",
        ]
    )


if __name__ == "__main__":
    main()
