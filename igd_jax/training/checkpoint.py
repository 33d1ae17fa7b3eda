"""Checkpoints: the last state to resume from, and the best parameters to use. The only module that knows Orbax."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
import orbax.checkpoint as ocp
from flax import nnx

from igd_jax.core.fingerprint import fingerprint, sample_leaves
from igd_jax.training.step import Params, TrainState

Check: TypeAlias = Callable[[dict[str, Any]], None]
"""Function of a checkpoint's progress that raises, before any array is read, if the checkpoint does not fit."""


class Checkpoints:
    """`last` and `best` under one folder, each holding the newest of its kind.

    Saving runs in the background; a process that is killed meanwhile leaves the previous checkpoint. `close` waits.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        self._last = ocp.CheckpointManager(folder.absolute() / "last", options=options)
        self._best = ocp.CheckpointManager(folder.absolute() / "best", options=options)

    def save_last(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Save all that resuming needs; `progress` is JSON."""
        self._save(self._last, int(state.step), state, progress)

    def save_best(self, step: int, params: Params, progress: dict[str, Any]) -> None:
        """Save the parameters of the best evaluation so far."""
        self._save(self._best, step, params, progress)

    def restore_last(
        self, like: TrainState, *, check: Check = lambda _: None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The last state in the shapes, dtypes and shardings of `like`, or None when there is none."""
        return self._restore(self._last, like, check)

    def restore_best(self, like: Params, *, check: Check = lambda _: None) -> tuple[Params, dict[str, Any]] | None:
        """The best parameters, or None when there are none yet."""
        return self._restore(self._best, like, check)

    def close(self) -> None:
        """Wait until all is written."""
        for manager in (self._last, self._best):
            manager.wait_until_finished()
            manager.close()

    @staticmethod
    def _save(manager: ocp.CheckpointManager, step: int, tree: Any, progress: dict[str, Any]) -> None:
        if step in manager.all_steps():  # a resumed run reaches the same step again, with the same values
            return
        args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), progress=ocp.args.JsonSave(progress))
        manager.save(step, args=args, force=True)

    @staticmethod
    def _restore(manager: ocp.CheckpointManager, like: Any, check: Check) -> tuple[Any, dict[str, Any]] | None:
        step = manager.latest_step()
        if step is None:
            return None
        progress = manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
        check(progress)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        tree = manager.restore(step, args=ocp.args.Composite(tree=ocp.args.StandardRestore(abstract)))["tree"]
        return tree, progress


def frozen_fingerprint(frozen: Any) -> str:
    """Fingerprint of the variables that training leaves as they are and that no checkpoint holds.

    Variables with a ``made_from`` are represented by it: computed on another device, their values may differ slightly.
    """
    parts: list[bytes | str] = []
    for variable in jax.tree.leaves(frozen, is_leaf=lambda node: isinstance(node, nnx.Variable)):
        made_from = variable.get_metadata().get("made_from")
        parts += [made_from] if made_from else sample_leaves(variable)
    return fingerprint(*parts)
