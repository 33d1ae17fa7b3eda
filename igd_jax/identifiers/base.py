"""Inputs of identifiers, and their selection by name (docs/howto/own_identifier.md)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.identifiers import Identifiers


@dataclass(frozen=True)
class Source:
    """Data from which identifiers can be made.

    Attributes:
      item_ids, titles: id and title of each item.
      texts: further texts of items by field, as in `data.prepared.Prepared`.
      tokenizer: tokenizer of prompts; its ids come first in the vocabulary.
      cache: folder of token rows (`data.token_cache`).
      around: text before and after a title in an answer, without EOS; see `data.templates.Template.around`.
    """

    item_ids: Sequence[str]
    titles: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer
    cache: Path
    around: tuple[str, str] = ("", "\n")


def identifier_names() -> list[str]:
    """Names of the modules in this folder, which are the values of `config.identifiers.name`."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))


def identifiers_class(name: str) -> Callable[[Source], Identifiers]:
    """The function that makes the identifiers called `name`.

    Raises:
      InputError: there is no such kind.
    """
    if name not in (known := identifier_names()):
        raise InputError(f"config.identifiers.name is {name!r}; expected one of {', '.join(known)}")
    make: Callable[[Source], Identifiers] = importlib.import_module(f"igd_jax.identifiers.{name}").IDENTIFIERS
    return make
