"""Where the values of metrics.jsonl also go: TensorBoard, if it is installed, and Weights & Biases, if it is asked for.

A tracker is opened by its first value, so a start that fails before leaves nothing.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from igd_jax.core.errors import InputError
from igd_jax.core.io import write_text
from igd_jax.core.shown import shown


@runtime_checkable
class Tracker(Protocol):
    """Takes values of steps, which ascend and start again where a run resumes."""

    def truncate(self, last_step: int) -> None:
        """Forget values of later steps, which are written again; called before the first value of a start."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step, from 1; a step may have several calls."""

    def close(self) -> None:
        """Wait until everything is written."""


class TensorBoard:
    """Events in a folder; without the package ``tensorboardX``, nothing."""

    def __init__(self, folder: Path):
        try:  # seconds where torch is installed, which are not to be those of the first step
            from tensorboardX import SummaryWriter
        except ImportError:
            SummaryWriter = None
        self._make_writer, self._folder = SummaryWriter, folder
        self._writer: Any = None
        self._purge_step: int | None = None

    def truncate(self, last_step: int) -> None:
        """See `Tracker`."""
        self._purge_step = last_step + 1

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if self._make_writer is None:
            return
        if self._writer is None:
            self._writer = self._make_writer(str(self._folder), purge_step=self._purge_step, flush_secs=10)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run in a project of Weights & Biases, which is gone on with where training resumes.

    Whether values are sent at once, and to whom, is up to that package and its environment, such as WANDB_MODE=offline.

    Args:
      project: name of the project.
      folder: folder of the run, whose ``wandb`` holds the package's files and the id of its run.
      config: config of the run, as JSON values.

    Raises:
      InputError: the package is not installed, or, at the first value, refuses to begin.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise InputError(
                f"config.train.wandb is {shown(project)}, but the package wandb is not installed; pip install "
                "wandb, or leave the field empty"
            ) from None
        self._wandb, self._project, self._folder, self._config = wandb, project, folder, config
        self._run: Any = None

    def truncate(self, last_step: int) -> None:
        """Nothing: the service keeps the first values of a step, and leaves later ones out."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if self._run is None:
            self._run = self._opened(is_new=step == 1)
        self._run.log(dict(values), step=step)

    def _opened(self, *, is_new: bool) -> Any:
        id_file = self._folder / "wandb" / "id.txt"
        if is_new or not id_file.is_file():
            id_file.parent.mkdir(exist_ok=True)
            write_text(id_file, secrets.token_hex(8))
        try:
            return self._wandb.init(
                project=self._project,
                name=self._folder.name,
                id=id_file.read_text(encoding="utf-8"),
                resume="allow",
                dir=str(self._folder),
                config=dict(self._config),
                settings=self._wandb.Settings(console="off"),
            )
        except self._wandb.Error as error:
            raise InputError(
                f"config.train.wandb is {shown(self._project)}, but wandb says: {str(error).splitlines()[0]}; log in "
                "by `wandb login`, set WANDB_MODE=offline, or leave the field empty"
            ) from None

    def close(self) -> None:
        """See `Tracker`."""
        if self._run is not None:
            self._run.finish()
