"""SASRec benchmark: our training against a typical torch implementation, in one run.

    python -m benchmarks.sasrec [--epochs=2] [--ml=PREPARED] [--books=PREPARED]

Both sides have the same sizes, rows of each step, learning rate and number of epochs, in float32 on all cores: softmax
over all items, tied embeddings, last state only. The other side runs every position through
``nn.TransformerEncoderLayer`` and uses AdamW without clipping. HR@10 ranks all items for the test rows, seen or not.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags
from flax import nnx

from benchmarks import common
from configs import sasrec
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.core.map_rows import in_groups
from igd_jax.core.types import ItemBatch
from igd_jax.data.batches import make_item_batch, rows_of_step, steps_per_epoch
from igd_jax.data.examples import Examples
from igd_jax.models.sasrec import scores_of
from igd_jax.session.input import micro_batches
from igd_jax.session.session import Session, set_up
from igd_jax.session.weights import initial_state, split_trainable
from igd_jax.settings.settings import settings_from
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import grouped

K = 10


class Ours:
    """The functions of `igd_jax.train`."""

    def __init__(self, session: Session, examples: Examples):
        context, train = session.context(session.index), session.settings.train
        self._mesh = session.mesh
        self._batches, self._step = partial(micro_batches, session, {}, examples), 0
        schedule = make_schedule("constant", learning_rate=train.learning_rate, warmup_steps=0, num_steps=0)
        optimizer = make_optimizer(schedule, clip_norm=train.clip_norm, weight_decay=train.weight_decay)
        self._state, self._functions, *_ = initial_state(session, context, session.method.objective(context), optimizer)
        self._graph, _, self._frozen = split_trainable(session.method.make_model(context))

    def __call__(self, steps: Sequence[np.ndarray]) -> None:
        """Take steps, each over the given rows."""
        for rows in steps:
            groups = grouped(self._batches(rows, step=self._step), self._mesh)
            accumulator = self._functions.accumulate(self._state, groups)
            self._state, _ = self._functions.update(self._state, accumulator)
            self._step += 1
        jax.block_until_ready(self._state)

    def scores(self, batch: ItemBatch) -> np.ndarray:
        """Scores of all items."""
        model = nnx.merge(self._graph, self._state.params, self._frozen)
        users = model(jnp.asarray(batch.history), jnp.asarray(batch.history_mask))
        return np.asarray(scores_of(users, model.items()))


class Network(torch.nn.Module):
    """A typical torch SASRec; item n_items is the padding, on the left."""

    def __init__(self, n_items: int, *, max_history: int, width: int, num_blocks: int, num_heads: int, dropout: float):
        super().__init__()
        self.item = torch.nn.Embedding(n_items + 1, width, padding_idx=n_items)
        self.position = torch.nn.Embedding(max_history, width)
        self.drop, self.norm = torch.nn.Dropout(dropout), torch.nn.LayerNorm(width)
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(width, num_heads, width, dropout, batch_first=True, norm_first=True)
            for _ in range(num_blocks)
        )
        for table in (self.item, self.position):
            torch.nn.init.normal_(table.weight, std=0.02)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        """Scores of all items after the last column."""
        hidden = self.drop(self.item(history) + self.position.weight[-history.shape[1] :])
        n = history.shape[1]
        later = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        # Padding sees itself, as a row that sees nothing would become NaN.
        mask = (later | (history == self.item.padding_idx)[:, None]) & ~torch.eye(n, dtype=torch.bool)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask.repeat_interleave(block.self_attn.num_heads, dim=0))
        return self.norm(hidden)[:, -1] @ self.item.weight[:-1].T


class Peer:
    """A torch loop."""

    def __init__(self, session: Session, examples: Examples):
        torch.manual_seed(0)
        train, args = session.settings.train, dict(session.settings.method.args)
        del args["loss"]
        self._examples, self._n_items = examples, len(session.index.titles)
        self._network = Network(self._n_items, **args)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
        )

    def __call__(self, steps: Sequence[np.ndarray]) -> None:
        """Take steps, each over the given rows."""
        self._network.train()
        for rows in steps:
            batch = make_item_batch(self._examples, rows, size=len(rows))
            target = torch.from_numpy(batch.target).long()
            loss = torch.nn.functional.cross_entropy(self._network(self._history(batch)), target)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    def scores(self, batch: ItemBatch) -> np.ndarray:
        """Scores of all items."""
        with torch.no_grad():
            return self._network.eval()(self._history(batch)).numpy()

    def _history(self, batch: ItemBatch) -> torch.Tensor:
        return torch.from_numpy(np.where(batch.history_mask, batch.history, self._n_items)).long()


def hit_rate(side: Ours | Peer, examples: Examples) -> float:
    """HR@10 over all rows, all items ranked."""

    def hits() -> Iterator[np.ndarray]:
        for rows in in_groups(np.arange(len(examples)), 1024):
            batch = make_item_batch(examples, rows, size=len(rows))
            scores = side.scores(batch)
            own = np.take_along_axis(scores, batch.target[:, None], axis=1)
            yield (scores > own).sum(axis=1) < K

    return round(float(np.concatenate(list(hits())).mean()), 4)


def compare(session: Session, *, n_epochs: int) -> dict[str, dict[str, float]]:
    """Train both sides in alternating epochs; returns the figures of each, with the speed of its fastest epoch."""
    train, test = (session.examples(session.rows(split)) for split in ("train", "test"))
    size, seed = session.settings.train.global_batch_size, session.settings.train.seed
    per_epoch = steps_per_epoch(len(train), size)
    sides = {"ours": Ours(session, train), "torch": Peer(session, train)}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(n_epochs):
        numbers = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        steps = [rows_of_step(len(train), batch_size=size, seed=seed, step=step) for step in numbers]
        for name, side in sides.items():
            taken[name].append(common.seconds(lambda side=side, steps=steps: side(steps)))
    return {
        name: {
            "examples_per_second": round(len(train) / min(taken[name]), 1),
            f"hr@{K}": hit_rate(side, test),
        }
        for name, side in sides.items()
    }


def main() -> None:
    """Entry point."""
    columns: dict[str, dict[str, float]] = {"igd_jax": {}, "torch": {}}
    ratios = {}
    for name in ("ml", "books"):
        config = sasrec.get_config()
        config.data.dir, config.mesh.data = flags.FLAGS[name].value, 1
        session = set_up(settings_from(config), Workdir(str(Path(config.data.dir) / "run")))
        figures = compare(session, n_epochs=flags.FLAGS.epochs)
        for column, side in (("igd_jax", "ours"), ("torch", "torch")):
            columns[column] |= {f"{name}_{figure}": value for figure, value in figures[side].items()}
        speeds = [figures[side]["examples_per_second"] for side in ("ours", "torch")]
        ratios[f"{name}_examples_per_second_ratio"] = round(speeds[0] / speeds[1], 2)
    config = sasrec.get_config()
    settings = {"epochs": flags.FLAGS.epochs, **config.method.args.to_dict()}
    settings |= {field: config.train[field] for field in ("global_batch_size", "learning_rate")}
    common.report("sasrec", settings, columns, **ratios)


if __name__ == "__main__":
    flags.DEFINE_string("ml", None, "Prepared folder of MovieLens 100K.", required=True)
    flags.DEFINE_string("books", None, "Prepared folder of Amazon Books.", required=True)
    flags.DEFINE_integer("epochs", 2, "Epochs of training per side.", lower_bound=1)
    run_main(main)
