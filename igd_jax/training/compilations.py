"""Lines about programs before they are compiled: what for, and which of how many; and while they first run."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from igd_jax.core.log import heartbeat, say
from igd_jax.core.types import ItemBatch
from igd_jax.training.step import Batch, Group, shape_of

Part = TypeVar("Part")


class Compilations:
    """The shapes of batches that programs were compiled for so far."""

    def __init__(self) -> None:
        self._known = set[tuple[object, ...]]()

    def __len__(self) -> int:
        return len(self._known)

    def watch(self, what: str, parts: Iterable[Part], *, n_shapes: int = 0) -> Iterator[Part]:
        """Pass on batches or groups of them; prints lines before and while a shape is compiled, and first used.

        Args:
          what: noun for the program that is compiled for them.
          parts: the batches, or groups of them.
          n_shapes: number of shapes there are in all calls, if that is known; 0 = those of `parts` are counted, if it
            has a length.
        """
        number = len(self) if n_shapes else 0
        if isinstance(parts, Sized) and not n_shapes:
            n_shapes = len({(what, *shape_of(part)) for part in parts} - self._known)
        for part in parts:
            if (shape := (what, *shape_of(part))) in self._known:
                yield part
                continue
            self._known.add(shape)
            number += 1
            counted = f" ({number} of {n_shapes})" if number <= n_shapes > 1 else ""
            say(f"compiling the {what} of {_size(part)}{counted}")
            with heartbeat(f"at the {what}"):
                yield part


def _size(part: object) -> str:
    """Description of the rows and columns of a batch, or of those of a group."""
    batch: Batch = part.batches if isinstance(part, Group) else part  # type: ignore[assignment]
    if isinstance(batch, ItemBatch):
        n_rows, n_items = batch.history.shape[-2:]
        return f"{n_rows} rows of {n_items} items"
    n_rows, width = batch.prompt.shape[-2:]
    n_shared, (n_groups, n_target) = batch.shared_prefix.shape[-1], batch.target.shape[-2:]
    if batch.pack_trees is not None:
        return f"{n_rows} packs of {width} tokens after {n_shared} shared ones, {n_groups * n_target} targets"
    targets = f", targets of {n_target}" if n_target else ""
    return f"{n_rows} rows, prompts of {n_shared + width} tokens{targets}"
