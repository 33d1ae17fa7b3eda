"""Rank 3: one module a method; the file name is ``config.method.name``.

JAX is imported with the first method: commands that need none say so at once.
"""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igd_jax.core.errors import InputError

if TYPE_CHECKING:
    import igd_jax.methods.base


def method_class(name: str) -> type["igd_jax.methods.base.Method"]:
    """The class of the method `config.method.name`.

    Raises:
      InputError: there is no such method.
    """
    if name not in (known := _known()):
        raise InputError(f"config.method.name is {name!r}; known methods are {', '.join(known)}")
    found: type[igd_jax.methods.base.Method] = importlib.import_module(f"igd_jax.methods.{name}").METHOD
    return found


def load_method(name: str, args: Mapping[str, Any]) -> "igd_jax.methods.base.Method":
    """Make the method `config.method.name` with the arguments `config.method.args`.

    Raises:
      InputError: there is no such method, or it does not accept an argument or a value.
    """
    method = method_class(name)
    takes = inspect.signature(method).parameters
    unknown = sorted(set(args) - set(takes))
    if unknown:
        raise InputError(f"config.method.args has {', '.join(unknown)}; {name} takes {', '.join(takes)}")
    return method(**args)


def with_defaults(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a method: those given, and the defaults of the others; of an unknown method those given."""
    takes = inspect.signature(method_class(name)).parameters if name in _known() else {}
    return {each: parameter.default for each, parameter in takes.items()} | dict(args)


def _known() -> list[str]:
    """Names of all methods."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))
