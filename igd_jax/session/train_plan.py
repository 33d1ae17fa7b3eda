"""Duration of training, and the steps at which it is evaluated."""

from igd_jax.data.batches import steps_per_epoch
from igd_jax.session.settings import Settings


class TrainPlan:
    """Numbers that follow from the settings and the size of the train split; as text, one line.

    Attributes:
      n_rows: number of train rows in use.
      epoch: number of steps per epoch.
      num_steps: total number of steps.
      eval_every_steps: number of steps between evaluations.
      global_batch_size, micro_batch_size, patience: as in the settings.
    """

    def __init__(self, settings: Settings, n_rows: int):
        train = settings.train
        self.n_rows, self.patience = n_rows, train.patience
        self.global_batch_size, self.micro_batch_size = train.global_batch_size, train.micro_batch_size
        self.epoch = steps_per_epoch(n_rows, self.global_batch_size)
        self.num_steps = train.num_steps or train.num_epochs * self.epoch
        self.eval_every_steps = train.eval_every_steps or self.epoch

    def __str__(self) -> str:
        return (
            f"plan: {self.num_steps:,} steps of {self.global_batch_size} rows ({self.epoch:,} steps per epoch of "
            f"{self.n_rows:,} rows), micro-batches of {self.micro_batch_size}"
        )

    def evaluates(self, step: int) -> bool:
        """Whether to evaluate on valid after this many steps."""
        return step > 0 and (step % self.eval_every_steps == 0 or step >= self.num_steps)

    def out_of_patience(self, worse: int) -> bool:
        """Whether this many evaluations without a better loss end training."""
        return self.patience > 0 and worse >= self.patience

    def is_over(self, step: int, *, worse: int) -> bool:
        """Whether training is complete."""
        return step >= self.num_steps or self.out_of_patience(worse)
