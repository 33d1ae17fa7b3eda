"""Values to try for a field of the config, ``decode.alpha=0,0.2``, and all combinations of several such lists."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from igd_jax.core.allowed import OF_TRAIN_ROWS
from igd_jax.core.errors import InputError
from igd_jax.core.suggest import UnknownNameError
from igd_jax.methods import method_class

PARSERS: dict[type, flags.ArgumentParser] = {
    float: flags.FloatParser(),
    int: flags.IntegerParser(),
    bool: flags.BooleanParser(),
}


CANDIDATES = ("decode.candidates", "decode.allowed", "decode.exclude_history")
"""Fields that say which items may be recommended."""


class Axis(NamedTuple):
    """Full name of a field of the config, and the values to try, in the given order."""

    field: str
    values: list[Any]


def parse_axis(text: str, config: ConfigDict, *, option: str, under: Sequence[str] = ()) -> Axis:
    """Parse ``FIELD=VALUE,VALUE``, with values of the field's type: a number, true or false, or a text.

    Args:
      text: the text.
      config: config with the field.
      option: option that `text` belongs to, for messages.
      under: allowed beginnings of the field's name; empty = any field.

    Raises:
      InputError: there is no such field, it may not be varied here, there is no value, or a value is repeated or of a
        wrong type.
    """
    given, (field, _, values) = f"{option}={text}", text.partition("=")
    if not values:
        raise InputError(f"{given} has no values; write {option}=FIELD=VALUE,VALUE")
    kind = _type_of(field, config, given)
    if under and not field.startswith(tuple(under)):
        raise InputError(f"{given}: {field} cannot be varied here; expected a field of {', '.join(under)}")
    if kind is not str and kind not in PARSERS:
        raise InputError(f"{given}: {field} is a {kind.__name__}; only numbers, true or false, and texts can be varied")
    parsed = [_parse(kind, value, given) for value in values.split(",")]
    if twice := [value for place, value in enumerate(parsed) if value in parsed[:place]]:
        raise InputError(f"{given} has {twice[0]!r} twice; give each value once")
    return Axis(field, parsed)


def check_comparable(axis: Axis, config: ConfigDict, *, option: str) -> None:
    """Raise `InputError` for a field whose values lead to metrics of different rows, or among different candidates."""
    field, fix = axis.field, ""
    if field == "data.candidates" and not config.decode.candidates:
        what, fix = "among different candidates", "set config.decode.candidates, among which all will rank, or "
    elif field in CANDIDATES:
        what = "among different candidates"
    elif field == "data.max_examples" and (config.decode.candidates or config.data.candidates) in OF_TRAIN_ROWS:
        what, fix = "among candidates that follow the train rows", "set config.decode.candidates=catalogue, or "
    elif field == "data.dir":
        what = "of different data"
    else:
        return
    raise InputError(
        f"{option} names {field}, but metrics {what} cannot be compared; {fix}give each value as --config.{field}, in "
        "a command and a folder of its own"
    )


def decodes(field: str, config: ConfigDict) -> bool:
    """Whether a field says how a trained model is decoded, and nothing of training."""
    return field.startswith("decode.") or field in _decoding_args(config)


def check_decodes(axis: Axis, config: ConfigDict, *, option: str) -> None:
    """Raise `InputError` for a field that decoding does not read, so that all values would give the same lists."""
    if not decodes(axis.field, config):
        expected = ", ".join(["a field of decode", *_decoding_args(config)])
        raise InputError(
            f"{option} names {axis.field}, which decoding by {config.method.name} does not read; expected {expected}"
        )


def _decoding_args(config: ConfigDict) -> list[str]:
    return [f"method.args.{name}" for name in method_class(config.method.name).decoding_args]


def check_field(field: str, config: ConfigDict, *, before: str = "") -> None:
    """Raise `InputError` unless the config has a field, or section, of this full name; `before` begins the message."""
    known = list(_full_names(config))
    if field not in known:
        (section, _, last), message = field.rpartition("."), f"{before}the config has no field {field}"
        fields = [name.removeprefix(f"{section}.") for name in known if name.startswith(f"{section}.")]
        given, alike = (last, fields) if fields else (field, known)
        if named := [name for name in known if name.rpartition(".")[2] == field]:  # without its section
            given, alike = named[0], named
        raise UnknownNameError(f"{message}; --help_config lists them all", given, alike)


def _full_names(config: ConfigDict, under: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{under}{name}"
        if isinstance(value, ConfigDict):
            yield from _full_names(value, f"{under}{name}.")


def _type_of(field: str, config: ConfigDict, given: str) -> type:
    check_field(field, config, before=f"{given}: ")
    *sections, last = field.split(".")
    for section in sections:
        config = config[section]
    kind: type = config.get_type(last)
    return kind


def _parse(kind: type, value: str, given: str) -> Any:
    if kind is str:
        return value
    try:
        return PARSERS[kind].parse(value)
    except ValueError:
        raise InputError(f"{given}: {value!r} cannot be read as {kind.__name__}") from None


def points(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """All combinations of one value per axis, the last axis varying fastest; one empty combination without axes.

    Raises:
      InputError: a field has two axes.
    """
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise InputError(f"a field is varied twice ({', '.join(fields)}); give all its values in one list")
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip(fields, values, strict=True))


def changed(config: ConfigDict, point: dict[str, Any]) -> ConfigDict:
    """A copy of the config with these fields set."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(point)
    return copy


def name_of(point: dict[str, Any]) -> str:
    """Name of a folder: ``alpha=0.2,seed=1``. Fields are shortened to their last part if that is unambiguous."""
    short = [field.rsplit(".", 1)[-1] for field in point]
    names = short if len(set(short)) == len(short) else list(point)
    text = ",".join(f"{name}={value}" for name, value in zip(names, point.values(), strict=True))
    return re.sub(r"[^A-Za-z0-9._=,-]", "_", text)
