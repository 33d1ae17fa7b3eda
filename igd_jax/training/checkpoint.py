"""Checkpoints: the last state to resume from, and the best parameters to use. The only module that knows Orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from igd_jax.training.step import Params, TrainState


class Checkpoints:
    """`last` and `best` under one folder, each holding the newest of its kind.

    Saving goes on in the background; a process that is killed meanwhile leaves the checkpoint before. `close` waits.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        self._last = ocp.CheckpointManager(folder.absolute() / "last", options=options)
        self._best = ocp.CheckpointManager(folder.absolute() / "best", options=options)

    def save_last(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Save all that is needed to go on; `progress` is JSON."""
        self._save(self._last, int(state.step), state, progress)

    def save_best(self, step: int, params: Params, progress: dict[str, Any]) -> None:
        """Save the parameters of the best evaluation so far."""
        self._save(self._best, step, params, progress)

    def restore_last(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The last state in the shapes, dtypes and shardings of `like`, or None when there is none."""
        return self._restore(self._last, like)

    def restore_best(self, like: Params) -> tuple[Params, dict[str, Any]] | None:
        """The best parameters, or None when there are none yet."""
        return self._restore(self._best, like)

    def close(self) -> None:
        """Wait until all is written."""
        for manager in (self._last, self._best):
            manager.wait_until_finished()
            manager.close()

    @staticmethod
    def _save(manager: ocp.CheckpointManager, step: int, tree: Any, progress: dict[str, Any]) -> None:
        if step in manager.all_steps():  # a resumed run comes by the same step again, with the same values
            return
        args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), progress=ocp.args.JsonSave(progress))
        manager.save(step, args=args, force=True)

    @staticmethod
    def _restore(manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict[str, Any]] | None:
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(tree=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        found = manager.restore(step, args=args)
        return found["tree"], found["progress"]
