"""What identifiers are made from, and how they are chosen (docs/extending.md)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.identifiers import Identifiers


@dataclass(frozen=True)
class Source:
    """What identifiers may be made from.

    Attributes:
      item_ids, titles: of each item.
      texts: what else is known of items in words, by field; as in `data.prepared.Prepared`.
      tokenizer: tokenizer of prompts; its ids come first in the vocabulary.
      cache: folder for what takes long to compute.
    """

    item_ids: Sequence[str]
    titles: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer
    cache: Path


def identifier_names() -> list[str]:
    """The modules of this folder, which are the values of `config.identifiers.name`."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))


def identifiers_class(name: str) -> Callable[[Source], Identifiers]:
    """What makes the identifiers of `config.identifiers.name`.

    Raises:
      InputError: there are none of that name.
    """
    if name not in (known := identifier_names()):
        raise InputError(f"config.identifiers.name is {name!r}; expected one of {', '.join(known)}")
    make: Callable[[Source], Identifiers] = importlib.import_module(f"igd_jax.identifiers.{name}").IDENTIFIERS
    return make
