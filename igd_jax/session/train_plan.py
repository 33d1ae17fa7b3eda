"""Duration of training, the rows of each step, and the steps at which it is evaluated."""

import numpy as np
from jaxtyping import Int

from igd_jax.data.batches import Users, rows_of_step, steps_per_epoch
from igd_jax.session.session import Session


class TrainPlan:
    """What follows from the settings and the train split; as text, one line.

    Attributes:
      n_rows: number of train rows in use.
      epoch: number of steps per epoch.
      num_steps: total number of steps.
      eval_every_steps: number of steps between evaluations.
      global_batch_size, micro_batch_size, patience: as in the settings.
      notes: lines that say that the rate stays below its peak, as its warm-up does not end before training, or that one
        evaluation within an epoch can end training.
    """

    def __init__(self, session: Session, n_rows: int):
        train = session.settings.train
        self.n_rows, self.patience = n_rows, train.patience
        self.global_batch_size, self.micro_batch_size = train.global_batch_size, train.micro_batch_size
        self.epoch = steps_per_epoch(n_rows, self.global_batch_size)
        self.num_steps = train.num_steps or train.num_epochs * self.epoch
        self.eval_every_steps = train.eval_every_steps or self.epoch
        self.notes: list[str] = []
        if train.warmup_steps >= self.num_steps:
            highest = train.learning_rate * (self.num_steps - 1) / train.warmup_steps
            self.notes.append(
                f"note: config.train.warmup_steps={train.warmup_steps} does not end before training does, so the rate "
                f"rises to {highest:.2g} and not to config.train.learning_rate={train.learning_rate:g}; lower "
                "warmup_steps, or train longer"
            )
        if train.patience == 1 and self.eval_every_steps < min(self.epoch, self.num_steps):
            self.notes.append(
                f"note: training ends at the first evaluation, one per {self.eval_every_steps:,} steps, whose loss is "
                "no better, which may be noise; raise config.train.patience, or 0: never"
            )
        self._seed = train.seed
        self._users: Users | None = None
        if train.shuffle == "users":
            self._users = Users(np.unique(session.rows("train").user.astype(str), return_inverse=True)[1])

    def __str__(self) -> str:
        enough = self.patience * self.eval_every_steps
        end = f"; at most {enough:,} steps ({enough / self.epoch:.2g} epochs) without a better loss" if enough else ""
        return (
            f"plan: {self.num_steps:,} steps of {self.global_batch_size} rows ({self.epoch:,} steps per epoch of "
            f"{self.n_rows:,} rows), micro-batches of {self.micro_batch_size}{end}"
        )

    def rows(self, step: int) -> Int[np.ndarray, " b"]:
        """Train rows of the batch at `step` (from 0), drawn as `train.shuffle` says."""
        return rows_of_step(
            self.n_rows, batch_size=self.global_batch_size, seed=self._seed, step=step, users=self._users
        )

    def owes_evaluation(self, step: int, *, evaluated: int) -> bool:
        """Whether to evaluate on valid after this many steps; the last time was after `evaluated`, 0 = never."""
        return evaluated < step and (step % self.eval_every_steps == 0 or step >= self.num_steps)

    def out_of_patience(self, worse: int) -> bool:
        """Whether this many evaluations without a better loss end training."""
        return self.patience > 0 and worse >= self.patience

    def is_over(self, step: int, *, worse: int) -> bool:
        """Whether training is complete."""
        return step >= self.num_steps or self.out_of_patience(worse)
