"""Training benchmark: our train step with information-gain weights against a torch loop as published, in one run.

    python -m benchmarks.training [--steps=2] [--examples=1024] [--data=FOLDER] [--model=HF_FOLDER]

Rows are padded, stand in packs, or are trees (docs/packing.md); FLOPs of each are the matter of `benchmarks.packing`.
All sides start from the same weights and see the same rows at each step (128, in micro-batches of 16), in float32 on
all cores, and must have the same losses. The other side follows the published code: micro-batches in random order
padded to their longest row, logits at every position, and weights by a walk through a trie of dictionaries inside the
loss (docs/methods.md, IGD weights). There is one difference, which does not affect the time: the loss is divided once
per step, like ours, instead of once per micro-batch, so that all take the same steps.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from absl import flags

from benchmarks import common
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.data.batches import rows_of_step
from igd_jax.data.examples import Examples
from igd_jax.session.cost import flops_of
from igd_jax.session.input import micro_batches
from igd_jax.session.packing import choose_packs
from igd_jax.session.session import Session
from igd_jax.session.weights import initial_state
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import grouped

REPEATS = 3
FIRST_TOLERANCE, LATER_TOLERANCE = 1e-4, 1e-3
IGNORED = -100


class Ours:
    """The functions of `igd_jax.train`."""

    def __init__(self, session: Session, examples: Examples):
        context = session.context(session.index)
        objective = session.method.objective(context)
        train, packs = session.settings.train, choose_packs(session, objective, train=examples, valid=examples)
        self._batches = partial(micro_batches, session, objective.annotations, examples, packs=packs)
        schedule = make_schedule("constant", learning_rate=train.learning_rate, warmup_steps=0, num_steps=0)
        optimizer = make_optimizer(schedule, clip_norm=train.clip_norm, weight_decay=train.weight_decay)
        self._mesh = session.mesh
        self._room = packs.batches if packs else train.global_batch_size // train.micro_batch_size
        self._state, self._functions, *_ = initial_state(session, context, objective, optimizer)
        self._flops = flops_of(session, self._state)

    def __call__(self, steps: Sequence[np.ndarray]) -> list[float]:
        """Take steps, each over the given rows; the loss of each, before its update."""
        losses = []
        for rows in steps:
            groups = grouped(self._batches(rows), self._mesh, room=self._room)
            accumulator = self._functions.accumulate(self._state, groups)
            self._state, metrics = self._functions.update(self._state, accumulator)
            losses.append(metrics["loss"])
        return jax.device_get(jax.block_until_ready((losses, self._state))[0])

    def tokens(self, rows: np.ndarray) -> int:
        """Tokens through the model in one step, padding included."""
        return sum(
            len(one.shared_prefix) + one.prompt.size + (0 if one.paths else one.target.size)  # packs hold both
            for one in self._batches(rows)
        )

    def flops(self, rows: np.ndarray) -> float:
        """Floating-point operations that the model needs for one step, without padding."""
        return sum(map(self._flops, self._batches(rows)))


class Peer:
    """A torch loop."""

    def __init__(self, session: Session, examples: Examples):
        self._index, self._eos, self._examples = session.index, session.tokenizer.eos, examples
        self._train, self._beta = session.settings.train, session.settings.method.args["beta"]
        self._root = common.build_dict_trie(session.index)
        self._model = common.torch_model(session).train()
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=self._train.learning_rate, weight_decay=self._train.weight_decay
        )

    def __call__(self, steps: Sequence[np.ndarray]) -> list[float]:
        """Take steps, each over the given rows; the loss of each, before its update."""
        return [self._step(rows) for rows in steps]

    def tokens(self, rows: np.ndarray) -> int:
        """Tokens through the model in one step, padding included."""
        return sum(self._collate(group)[0].numel() for group in self._groups(rows))

    def _step(self, rows: np.ndarray) -> float:
        loss_sum = weight_sum = 0.0
        for group in self._groups(rows):
            loss, weight = self._loss(*self._collate(group))
            loss.backward()
            loss_sum, weight_sum = loss_sum + loss.item(), weight_sum + weight
        parameters = list(self._model.parameters())
        for parameter in parameters:
            parameter.grad /= weight_sum
        torch.nn.utils.clip_grad_norm_(parameters, self._train.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss_sum / weight_sum

    def _groups(self, rows: np.ndarray) -> list[np.ndarray]:
        size = self._train.micro_batch_size
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _collate(self, group: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, mask and labels, padded on the right to a multiple of 8."""
        prompts = [self._examples.prompt[row] for row in group.tolist()]
        targets = [self._index.item_tokens[item] for item in self._examples.target[group].tolist()]
        longest = max(len(prompt) + len(target) for prompt, target in zip(prompts, targets, strict=True))
        shape = (len(group), -(-longest // 8) * 8)
        ids, labels = torch.full(shape, self._eos), torch.full(shape, IGNORED)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            begin, end = len(prompt), len(prompt) + len(target)
            ids[row, :end] = torch.from_numpy(np.concatenate([prompt, target]))
            labels[row, begin:end], mask[row, :end] = ids[row, begin:end], 1
        return ids, mask, labels

    def _loss(self, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Weighted sum of cross-entropies, and the sum of the weights."""
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        weights = [weight for row in labels for weight in self._weights(row[row != IGNORED].tolist())]
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="none")
        weight = torch.zeros_like(nll)
        weight[labels != IGNORED] = torch.tensor(weights)
        return (weight * nll).sum(), sum(weights)

    def _weights(self, tokens: list[int]) -> list[float]:
        """Weights of tokens: 1 if the gain is above 0, else beta; beta for all tokens of a title off the trie."""
        weights, node = [], self._root
        for token in tokens:
            child = node.children.get(token)
            if child is None:
                return [self._beta] * len(tokens)
            weights.append(1.0 if node.entropy - child.entropy else self._beta)
            node = child
        return weights


def choose_examples(session: Session, n_examples: int) -> Examples:
    """Random rows of the train split."""
    rows = session.rows("train")
    chosen = np.random.default_rng(0).choice(len(rows), min(n_examples, len(rows)), replace=False)
    return session.examples(rows.take(np.sort(chosen)))


def rows_of_steps(session: Session, examples: Examples, n_steps: int) -> list[np.ndarray]:
    """Row numbers of the first steps, the same for both sides."""
    train = session.settings.train
    return [
        rows_of_step(len(examples), batch_size=train.global_batch_size, seed=train.seed, step=step)
        for step in range(n_steps)
    ]


def check(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Differences of the losses of the same steps; the first loss is before any update.

    Raises:
      InputError: losses differ by more than `FIRST_TOLERANCE` or `LATER_TOLERANCE`.
    """
    differ = np.abs(np.array(ours) - np.array(theirs))
    if not (differ[0] <= FIRST_TOLERANCE and differ.max() <= LATER_TOLERANCE):
        raise InputError(f"losses {ours} and {theirs} differ: a bug in one of the sides")
    return {
        "loss": round(float(ours[0]), 6),
        "loss_difference": float(differ[0]),
        "later": float(differ[1:].max(initial=0.0)),
    }


def with_packing(session: Session, packing: str) -> Session:
    """The session with another `config.train.packing`."""
    train = replace(session.settings.train, packing=packing)
    return replace(session, settings=replace(session.settings, train=train))


SIDES: dict[str, Callable[[Session, Examples], Ours | Peer]] = {
    "igd_jax": Ours,
    "igd_jax, rows in packs": lambda session, examples: Ours(with_packing(session, "rows"), examples),
    "igd_jax, trees": lambda session, examples: Ours(with_packing(session, "trees"), examples),
    "torch": Peer,
}


def prepare_one_step(side: str, data: Path, model: Path, n_examples: int) -> Any:
    """For `common.added_peak_mb`: reads the inputs; the result loads the weights and takes one step."""
    session = common.make_session(data, model)
    examples = choose_examples(session, n_examples)
    return lambda: SIDES[side](session, examples)(rows_of_steps(session, examples, 1))


def compare(
    session: Session, *, n_steps: int, n_examples: int, repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Check and time all sides, on the same rows: figures of each, and of all."""
    examples = choose_examples(session, n_examples)
    steps = rows_of_steps(session, examples, n_steps)
    sides = {name: make(session, examples) for name, make in SIDES.items()}
    losses: dict[str, list[float]] = {}
    first = {name: common.seconds(lambda name=name: losses.update({name: sides[name](steps)})) for name in sides}
    agreements = [check(ours, losses["torch"]) for name, ours in losses.items() if name != "torch"]
    work = {name: partial(side, steps) for name, side in sides.items()}
    least = common.interleaved(work, repeats=repeats, clock=time.perf_counter)
    busy = common.interleaved(work, repeats=repeats, clock=time.process_time)
    n_rows = sum(map(len, steps))
    columns: dict[str, dict[str, Any]] = {
        name: {
            "examples_per_second": round(n_rows / least[name], 1),
            "examples_per_second_of_torch": round(least["torch"] / least[name], 2),
            "cpu_milliseconds_per_example": round(1000 * busy[name] / n_rows, 2),
            "tokens_through_the_model_per_example": round(sum(map(side.tokens, steps)) / n_rows),
        }
        for name, side in sides.items()
    }
    for name in columns.keys() - {"torch"}:
        columns[name]["compile_seconds"] = round(first[name] - least[name], 1)
    used = np.concatenate(steps)
    real = examples.prompt.lengths[used] + session.index.item_tokens.lengths[examples.target[used]]
    worst = {name: max(each[name] for each in agreements) for name in agreements[0]}
    return columns, {"tokens_per_example_without_padding": round(float(real.mean())), **worst}


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    model = Path(values.model)
    with common.prepared_folder(values.data) as data:
        session = common.make_session(data, model)
        columns, every = compare(session, n_steps=values.steps, n_examples=values.examples, repeats=REPEATS)
        for name, column in columns.items():
            column["peak_memory_mb"] = common.added_peak_mb(prepare_one_step, name, data, model, values.examples)
    settings = {
        "data": f"{Path(values.data).name} train",
        "model": model.name,
        "steps": values.steps,
        "examples": values.examples,
        **{field: getattr(session.settings.train, field) for field in ("global_batch_size", "micro_batch_size")},
        "beta": session.settings.method.args["beta"],
    }
    common.report("training", settings, columns, **every)


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_integer("steps", 2, "Steps of one side before the other's turn.", lower_bound=1)
    flags.DEFINE_integer("examples", 1024, "Rows of the train split that steps draw from.", lower_bound=128)
    run_main(main)
