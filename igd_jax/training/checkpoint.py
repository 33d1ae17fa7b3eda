"""Checkpoints: the last states to resume from, and the best parameters to use. The only module that uses Orbax.

::

    checkpoints/last/STEP/  {tree/, checkpoint.json}    the newest two states, the older one in case of damage
    checkpoints/best/STEP/  {tree/, checkpoint.json}    parameters of the best evaluation as of each of those states
    checkpoints/newest.json                             the newest step that was ever saved

checkpoint.json is the seal of a complete checkpoint (see `training.seals`).
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import jax
import orbax.checkpoint as ocp

from igd_jax.core.errors import InputError
from igd_jax.core.hosts import from_first
from igd_jax.core.io import read_json, write_json
from igd_jax.core.log import say
from igd_jax.core.process import is_first
from igd_jax.training.seals import TREE, DamagedError, best_step_of, is_sealed, seal, verified
from igd_jax.training.step import Params, TrainState

Check: TypeAlias = Callable[[dict[str, Any]], None]
"""Function of a checkpoint's progress that raises, before any array is read, if the checkpoint does not fit."""

LAST, BEST, NEWEST = "last", "best", "newest.json"
KEPT_STATES = 2


class Checkpoints:
    """The checkpoints in one folder, which is created by the first save.

    Saving runs in the background, and `close` waits for it; if the process is killed meanwhile, the earlier checkpoints
    remain. Errors of saving are raised by the next call that saves or closes.

    Of several processes, which share the folder, all save and restore together, each what its devices hold. The first
    does everything else, and chooses for all what is restored.
    """

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        options = ocp.AsyncOptions(create_directories_asynchronously=False)  # whose errors would cause a long wait
        self._savers = {
            kind: ocp.StandardCheckpointer(
                async_options=options,
                multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind),
            )
            for kind in (LAST, BEST)
        }
        self._sealed: dict[str, Future[None]] = {}
        self._sealer = ThreadPoolExecutor(1, "seal")  # one thread: a state is sealed after the best that it names
        self._known: dict[tuple[str, int], dict[str, Any]] = {}  # progress of checkpoints that exist or are being saved

    def save_last(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Save everything needed to resume; `progress` is JSON, whose ``best_step`` names the best so far, 0 = none."""
        self._save(LAST, int(state.step), state, progress)

    def save_best(self, step: int, params: Params, progress: dict[str, Any]) -> None:
        """Save the parameters of the best evaluation so far."""
        self._save(BEST, step, params, progress)

    def restore_last(
        self, like: TrainState, *, check: Check = lambda _: None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the newest usable state and its progress; None if there is none.

        States that are unfinished or damaged, or whose best parameters are, are skipped, and one line is printed for
        each. Checkpoints that are newer than the restored state are removed, as training will make them again.

        Args:
          like: state with the shapes, dtypes and shardings to restore, or only these (`sharding_rules.as_placed`).
          check: check of the progress.
        """
        if (found := from_first(self._newest_usable)) is None:
            return None
        step, progress, arrays, is_best_lost = found
        check(progress)
        state = self._restore(self._folder / LAST / str(step), like, arrays)
        if is_first():
            self._settle(step, progress.get("best_step", 0))
        self._known = {(LAST, step): progress}
        if is_best_lost:  # it has the same parameters
            self.save_best(step, state.params, progress)
        return state, progress

    def restore_best(self, like: Params, *, check: Check = lambda _: None) -> tuple[Params, dict[str, Any]] | None:
        """Restore the best parameters and their progress; None if there are none. Safe while another process trains.

        Args:
          like: parameters with the shapes, dtypes and shardings to restore, or only these (`sharding_rules.as_placed`).
          check: check of the progress.

        Raises:
          InputError: the parameters are damaged.
        """
        while found := from_first(self._best_usable):
            step, progress, arrays = found
            check(progress)
            path = self._folder / BEST / str(step)
            try:
                return self._restore(path, like, arrays), progress
            except (OSError, ValueError):
                if path.exists():
                    raise  # otherwise it was replaced by a better one meanwhile
        return None

    @property
    def newest_step(self) -> int:
        """`newest_step` of the folder."""
        return newest_step(self._folder)

    def clear(self) -> None:
        """Remove all checkpoints."""
        if is_first():
            _delete(self._folder)

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            for sealed in self._sealed.values():
                sealed.result()
        finally:
            self._sealer.shutdown()
            for saver in self._savers.values():
                saver.close()

    # --------------------------------------------------------------------------------------------------------- writing
    def _save(self, kind: str, step: int, tree: Any, progress: dict[str, Any]) -> None:
        known = self._known.get((kind, step))
        if known == progress:
            return
        if kind in self._sealed:
            self._sealed[kind].result()
        path = self._folder / kind / str(step)
        if known is None:  # otherwise only the progress of the same arrays changes
            if is_first():
                _remove(path)
                path.mkdir(parents=True)
            self._savers[kind].save(path / TREE, tree)
        self._known[kind, step] = progress
        best = self._sealed.get(BEST) if kind == LAST else None
        self._sealed[kind] = self._sealer.submit(self._seal, kind, path, progress, _described(tree), best)

    def _seal(
        self, kind: str, path: Path, progress: dict[str, Any], arrays: dict[str, str], best: Future[None] | None
    ) -> None:
        """Wait for the arrays, complete their checkpoint, and remove those that are no longer needed."""
        self._savers[kind].wait_until_finished()
        if best is not None:
            best.result()
        if not is_first():
            return
        seal(path, progress, arrays)
        if kind == LAST:
            write_json(self._folder / NEWEST, {"step": int(path.name)})
        self._remove_old()

    def _remove_old(self) -> None:
        """Remove all but the newest states, the newest best, and the best that each of those states names."""
        named = {path: best_step_of(path) for path in self._steps(LAST)}
        states = [path for path, best_step in named.items() if best_step is not None][:KEPT_STATES]
        bests = [path for path in self._steps(BEST) if is_sealed(path)][:1]
        bests += [path for path in self._steps(BEST) if int(path.name) in {named[state] for state in states}]
        for kind, kept in ((LAST, states), (BEST, bests)):
            for path in self._steps(kind):
                if kept and path not in kept and int(path.name) < int(kept[0].name):
                    _remove(path)

    def _settle(self, step: int, best_step: int) -> None:
        """Remove checkpoints of steps that will be trained again, and finish the removals of a killed process."""
        for kind, newest in ((LAST, step), (BEST, best_step)):
            for path in self._steps(kind):
                if int(path.name) > newest:
                    _remove(path)
            for left in (self._folder / kind).glob(".*.old"):
                _delete(left)
        write_json(self._folder / NEWEST, {"step": step})
        self._remove_old()

    # --------------------------------------------------------------------------------------------------------- reading
    def _steps(self, kind: str) -> list[Path]:
        """Folders of checkpoints, complete or not, newest first."""
        folder = self._folder / kind
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(
            (path for path in found if path.name.isascii() and path.name.isdecimal()),
            key=lambda path: int(path.name),
            reverse=True,
        )

    def _newest_usable(self) -> tuple[int, dict[str, Any], dict[str, str], bool] | None:
        """Step, progress and arrays of the newest usable state, and whether its best is lost, but is the same."""
        lost = self._folder / LAST / str(self.newest_step)
        if self.newest_step and lost not in self._steps(LAST):
            say(f"checkpoint of step {lost.name} passed over: it is gone ({lost})")
        for path in self._steps(LAST):
            step = int(path.name)
            try:
                progress, arrays = verified(path)
                best_step = progress.get("best_step", 0)
                is_best_lost = best_step > 0 and not self._is_whole(BEST, best_step)
                if is_best_lost and best_step != step:
                    raise DamagedError(f"cannot be gone on from: the best, of step {best_step}, is lost")
            except DamagedError as error:
                say(f"checkpoint of step {step} passed over: it {error} ({path})")
                continue
            return step, progress, arrays, is_best_lost
        return None

    def _best_usable(self) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        """Step, progress and arrays of the best parameters."""
        while step := self._best_step():
            path = self._folder / BEST / str(step)
            try:
                return step, *verified(path)
            except DamagedError as error:
                if self._best_step() == step:
                    raise InputError(
                        f"the best checkpoint, of step {step}, {error} ({path}); start igd_jax.train again with the "
                        "same config, which makes it again if it can"
                    ) from None
        return None

    def _best_step(self) -> int:
        """Step of the best parameters according to the newest finished checkpoints; 0 = none."""
        steps = [int(path.name) for path in self._steps(BEST) if is_sealed(path)]
        named = (best_step_of(path) for path in self._steps(LAST))  # None of what is unfinished or damaged
        steps.append(next((step for step in named if step is not None), 0))
        return max(steps)

    def _is_whole(self, kind: str, step: int) -> bool:
        try:
            verified(self._folder / kind / str(step))
        except DamagedError:
            return False
        return True

    def _restore(self, path: Path, like: Any, arrays: dict[str, str]) -> Any:
        if arrays != _described(like):
            raise InputError(
                f"{path} holds other arrays than the model of this config has; put back the config.json of the run"
            )
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._savers[path.parent.name].restore(path / TREE, like)


def newest_step(folder: Path) -> int:
    """Newest step that was ever saved in a folder of checkpoints, even if it no longer exists; 0 = none."""
    try:
        return int(read_json(folder / NEWEST)["step"])
    except (InputError, KeyError, TypeError, ValueError):
        return 0


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of each array, by its path."""
    return {jax.tree_util.keystr(path): f"{x.dtype}{[*x.shape]}" for path, x in jax.tree.leaves_with_path(tree)}


def _remove(path: Path) -> None:
    """Remove a checkpoint at once, by renaming it first; also removes leftovers of a killed process."""
    gone = path.with_name(f".{path.name}.old")
    _delete(gone)
    if path.is_symlink() or path.exists():
        path.rename(gone)
        _delete(gone)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
