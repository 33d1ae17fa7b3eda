"""Rank 3: one module a method; the file name is ``config.method.name``.

JAX is imported with the first method: commands that need none say so at once.
"""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_origin, get_type_hints

from igd_jax.core.errors import InputError
from igd_jax.core.suggest import UnknownNameError

if TYPE_CHECKING:
    import igd_jax.methods.base


def method_class(name: str) -> type["igd_jax.methods.base.Method"]:
    """The class of the method `config.method.name`.

    Raises:
      InputError: there is no such method, or its module has no class called ``METHOD``.
    """
    if name not in (known := _known()):
        raise UnknownNameError(f"config.method.name is {name!r}; known methods are {', '.join(known)}", name, known)
    found = getattr(importlib.import_module(f"igd_jax.methods.{name}"), "METHOD", None)
    if not isinstance(found, type):
        raise InputError(f"igd_jax/methods/{name}.py has no METHOD; expected its last line to be METHOD = its class")
    return found


def load_method(name: str, args: Mapping[str, Any]) -> "igd_jax.methods.base.Method":
    """Make the method `config.method.name` with the arguments `config.method.args`.

    Raises:
      InputError: there is no such method, it lacks members of `Method`, or it does not accept an argument or a value.
    """
    method = method_class(name)
    _check_whole(name, method)
    takes = inspect.signature(method).parameters
    unknown = sorted(set(args) - set(takes))
    if unknown:
        raise InputError(
            f"config.method.args has {', '.join(unknown)}; {name} takes {', '.join(takes) or 'none'}; leave the others "
            f"out of the experiment, or start from one of {name}, such as --config={name}"
        )
    made = method(**args)
    _check_whole(name, made)
    return made


def _check_whole(name: str, method: Any) -> None:
    """Raise `InputError` if a method, or its class, lacks a member that every method has; see `Method`.

    Members that are not declared as those of the class may be set by its constructor.
    """
    from igd_jax.methods.base import Method

    lacks = sorted(getattr(method, "__abstractmethods__", ()))
    for member, kind in get_type_hints(Method).items():
        is_due = get_origin(kind) is ClassVar or not inspect.isclass(method)
        lacks += [member] if is_due and not hasattr(method, member) else []
    if lacks:
        raise InputError(
            f"the METHOD of igd_jax/methods/{name}.py has no {', '.join(lacks)}; define all that every method has, "
            "which docs/howto/own_method.md lists"
        )


def with_defaults(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a method: those given, and the defaults of the others; of an unknown method those given."""
    takes = inspect.signature(method_class(name)).parameters if name in _known() else {}
    return {each: parameter.default for each, parameter in takes.items()} | dict(args)


def _known() -> list[str]:
    """Names of all methods."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))
