"""The seam between identifiers and everything else (docs/extending.md).

A kind of identifiers is one module of this folder, named as `config.identifiers.name`, whose ``IDENTIFIERS`` makes
`items.identifiers.Identifiers` from a `Source`. They never import one another.
"""

import importlib
from collections.abc import Mapping, Sequence
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
      texts: what else is known of the items in words; as in `data.prepared.Prepared`.
      tokenizer: of titles and prompts.
      cache: folder for what is slow to compute.
    """

    item_ids: Sequence[str]
    titles: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer
    cache: Path


def load_identifiers(name: str, source: Source) -> Identifiers:
    """Make the identifiers of `config.identifiers.name`.

    Raises:
      InputError: there are no such identifiers.
    """
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base"))
    if name not in known:
        raise InputError(f"config.identifiers.name is {name!r}; expected one of {', '.join(known)}")
    return importlib.import_module(f"igd_jax.identifiers.{name}").IDENTIFIERS(source)
