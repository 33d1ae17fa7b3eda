"""Checks of config values. Each error is one line: what was given, and what was expected."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

from igd_jax.core.errors import InputError
from igd_jax.core.io import is_url, local_path
from igd_jax.core.remote import local_folder
from igd_jax.core.shown import LONGEST_SHOWN, shortened, shown
from igd_jax.core.suggest import UnknownNameError

KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
SMALLEST_ARGUMENT, LARGEST_ARGUMENT = 1e-12, 1_000_000
"""Bounds on the size of a method's argument that is a number other than 0, due to float32 and memory."""
LONGEST_ARGUMENT = 4096
"""Maximum number of characters of a method's argument that is a text, which may be a path."""


@runtime_checkable
class Check(Protocol):
    """Raises `InputError` for an unusable value of the right type."""

    def __call__(self, field: str, value: Any) -> None:
        """Check the value of ``config.{field}``."""


def refused(field: str, value: Any, expected: str, *, but: str = "") -> InputError:
    """Make the error for a bad value.

    Args:
      field: name of the field, without "config.".
      value: the value.
      expected: description of good values, and advice if needed.
      but: fault of the value, if it is not obvious from `expected`.
    """
    return InputError(f"config.{field} is {shown(value)}{but}; expected {expected}")


def check_type(field: str, value: Any, kind: type) -> None:
    """Raise `InputError` unless a value has the type `kind`, one of `KINDS`; whole numbers are accepted as numbers."""
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise refused(field, value, KINDS[kind])


@dataclass(frozen=True)
class Range:
    """Accepts numbers from `low` to `high`, both included, so neither nan nor infinity.

    Attributes:
      low, high: the bounds.
      what: noun for the number, with its unit.
      also: one further number that is accepted, and its meaning: ``(0, "for all")``.
    """

    low: int | float
    high: int | float
    what: str
    also: tuple[int, str] | None = None

    def __call__(self, field: str, value: Any) -> None:
        if self.low <= value <= self.high or (self.also and value == self.also[0]):
            return
        meant = "" if self.also is None else f", or {self.also[0]} {self.also[1]}"
        raise refused(field, value, f"{self.what} from {_number(self.low)} to {_number(self.high)}{meant}")


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True)
class Text:
    """Accepts printable texts of `shortest` to `longest` characters."""

    shortest: int
    longest: int

    def __call__(self, field: str, value: Any) -> None:
        if not (self.shortest <= len(value) <= self.longest and value.isprintable()):
            raise refused(field, value, f"a text of {self.shortest} to {self.longest:,} printable characters")


def check_argument_size(field: str, value: str | int | float) -> None:
    """Raise `InputError` unless any argument of a method may have a value; methods check their own further."""
    if isinstance(value, str):
        Text(0, LONGEST_ARGUMENT)(field, value)
        if value:
            local_path(value, option=f"config.{field}")
    elif not abs(value) <= LARGEST_ARGUMENT:
        raise refused(field, value, f"a finite number of at most {_number(LARGEST_ARGUMENT)}")
    elif 0 < abs(value) < SMALLEST_ARGUMENT:
        raise refused(field, value, f"0, or at least {_number(SMALLEST_ARGUMENT)}")


class OneOf:
    """Accepts one of some names."""

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)

    def __call__(self, field: str, value: Any) -> None:
        if value not in self.names:
            error = refused(field, value, f"one of {', '.join(name or repr(name) for name in self.names)}")
            raise UnknownNameError(str(error), shown(value), self.names)


class SomeOf(OneOf):
    """Accepts a selection of names, each once, separated by commas."""

    def __call__(self, field: str, value: Any) -> None:
        given = value.split(",")
        if not set(given) <= set(self.names) or len(set(given)) < len(given):
            raise refused(field, value, f"some of {','.join(self.names)}, each once, separated by commas")


@dataclass(frozen=True)
class Existing:
    """Accepts paths of readable files or folders, and some words that are not paths.

    Attributes:
      what: noun for the file or folder, and advice if it is missing.
      holds: names or patterns of files in the folder; if empty, the path itself is a file.
      words: values that are not paths.
      by_url: whether it may be a folder of an object store.
    """

    what: str
    holds: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    by_url: bool = False

    def __call__(self, field: str, value: Any) -> None:
        if value in self.words:
            return
        if not value:
            raise InputError(f"config.{field} is not set; expected {self._expected}")
        if wrong := self._wrong(value):
            raise refused(field, value, f"{self._expected}{_meant_from(field, value)}", but=wrong)

    def on_this_machine(self, field: str, value: str, *, copy: bool) -> str:
        """The path that a value gives; a URL stands for a copy of its folder, made if `copy`."""
        if not value:
            return value
        if not (self.by_url and is_url(value)):
            local_path(value, option=f"config.{field}")
            return value
        return str(local_folder(value, option=f"config.{field}")) if copy else value

    @property
    def _expected(self) -> str:
        words = "".join(f"{word}, " for word in self.words if word)
        return f"{words}{'or ' if words else ''}{self.what}"

    def _wrong(self, value: str) -> str:
        path = Path(value)
        try:
            if not self.holds:
                return "" if path.is_file() and os.access(path, os.R_OK) else ", which is not a file that can be read"
            if not path.is_dir():
                return ", which is not a folder"
            lacks = [pattern for pattern in self.holds if not any(path.glob(pattern))]
        except (OSError, ValueError):  # a name that is too long or has a zero byte
            return ", which no file system can hold"
        return f", which holds no {lacks[0]}" if lacks else ""


def _meant_from(field: str, value: str) -> str:
    """Where a relative path is looked for, to append to a message; runs keep paths as they were given."""
    if os.path.isabs(value):
        return ""
    in_python = f", or load(RUN, {{'{field}': PATH}})," * field.startswith(("data.dir", "model.path", "decode."))
    told = f"--config.{field}=PATH{in_python} says where it is"
    return f"; looked for in {shortened(os.getcwd())}, the current folder: {told}"


T = TypeVar("T")


def check_names(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `InputError` unless a part of the config has exactly the known names.

    Args:
      where: name of the part.
      given: the part.
      known: names of its fields.
    """
    for name in sorted(set(given) ^ set(known)):
        if name in known:
            raise InputError(f"{where}.{name[:LONGEST_SHOWN]} is missing; --help_config lists all there are")
        message = f"{where}.{name[:LONGEST_SHOWN]} is unknown; --help_config lists all there are"
        raise UnknownNameError(message, name, known)


def read_section(name: str, kind: type[T], given: Any, needs: Collection[str]) -> T:
    """Read a section of the config into its dataclass, whose annotations give types and checks of the fields.

    Args:
      name: name of the section.
      kind: dataclass of the section.
      given: the section.
      needs: fields whose paths must exist.

    Raises:
      InputError: a field is missing or unknown, or has an unusable value.
    """
    if not isinstance(given, Mapping):
        raise refused(name, given, "a section with the fields that --help_config lists")
    hints = get_type_hints(kind, include_extras=True)
    check_names(f"config.{name}", given, hints)
    values = {field: _read(f"{name}.{field}", hint, given[field], needs) for field, hint in hints.items()}
    return kind(**values)


def _read(field: str, hint: Any, value: Any, needs: Collection[str]) -> Any:
    kind, *checks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(kind) is tuple:
        return _read_all(field, Annotated[get_args(kind)[0], *checks], value)
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise refused(field, value, "a section")
        return dict(value)
    if not any(type(check) is OneOf for check in checks):  # which says more, such as of a field that once was a bool
        check_type(field, value, kind)
    for check in checks:
        if isinstance(check, Existing):
            value = check.on_this_machine(field, value, copy=field in needs)
        if field in needs or not isinstance(check, Existing):
            check(field, value)
    return kind(value)


def _read_all(field: str, hint: Any, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, tuple | list) or not values:
        raise refused(field, values, "at least one number, as in (1, 5)")
    return tuple(_read(f"{field}[{place}]", hint, value, ()) for place, value in enumerate(values))
