"""FLOPs of training per example: rows padded as published, padded by us, in packs and as trees, on abstract arrays.

    python -m benchmarks.packing [--backbone=qwen2.5-1.5b] [--steps=8] [--tokenizer=HF_FOLDER]

Rows are those of Amazon Books as published, where a user has one row or histories slide, in random order, and of Amazon
Scientific, where histories grow, in steps of whole users. They have the lengths of the train split with the tokenizer
of Qwen2.5; no weights are made. FLOPs are those of the products in the traced gradient of the loss, padding included,
without what `config.model.remat` computes again. The published code pads each 16 rows to the longest and runs the head
at every position.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from benchmarks import common
from benchmarks.decoding_inputs import BOOKS, SCIENTIFIC, prepared
from benchmarks.training import rows_of_steps, with_train
from igd_jax.core.errors import run as run_main
from igd_jax.core.types import PackTrees, TextBatch
from igd_jax.data.examples import Examples
from igd_jax.methods.base import Objective, token_loss
from igd_jax.models.decoder import Decoder
from igd_jax.models.load import config_of
from igd_jax.session.input import micro_batches
from igd_jax.session.packing import choose_packs
from igd_jax.session.program_cost import products
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.training.step import shape_of

SIDES = {"padded": "none", "rows in packs": "rows", "trees": "trees"}


def gradient_flops(backbone: str) -> Callable[[TextBatch], float]:
    """FLOPs of the gradient of a batch, as a function of its shapes, each of which is traced once."""
    model = nnx.eval_shape(lambda: Decoder(config_of(backbone), rngs=nnx.Rngs(0)))
    graph, params = nnx.split(model)
    known: dict[Any, float] = {}

    def loss(params: Any, batch: TextBatch) -> jax.Array:
        return token_loss(nnx.merge(graph, params), batch, (), {}).loss

    def flops(batch: TextBatch) -> float:
        if (shape := shape_of(batch)) not in known:
            known[shape] = products(jax.make_jaxpr(jax.grad(loss))(params, batch))
        return known[shape]

    return flops


def published(session: Session, examples: Examples, rows: np.ndarray) -> Iterator[TextBatch]:
    """Shapes of the micro-batches of the published code: each row with its target, to a multiple of 8."""
    lengths = examples.prompt.lengths[rows] + session.index.item_tokens.lengths[examples.target[rows]]
    size = session.settings.train.micro_batch_size
    for first in range(0, len(rows), size):
        group = lengths[first : first + size]
        yield _at_every_position(len(group), -(-int(group.max()) // 8) * 8)


def _at_every_position(rows: int, width: int) -> TextBatch:
    """A batch that reads `width` tokens of each row, with a prediction for each."""

    def array(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, width), dtype)

    number, mask = array(jnp.int32), array(bool)
    return TextBatch(
        shared_prefix=jax.ShapeDtypeStruct((0,), jnp.int32),  # type: ignore[arg-type]
        prompt=number,
        prompt_mask=mask,
        target=number,
        target_mask=mask,
        place=number,
        before=number,
        first=jax.ShapeDtypeStruct((rows,), jnp.int32),  # type: ignore[arg-type]
        annotations={"weight": array(jnp.float32), "forced": mask},
        pack_trees=PackTrees(position=number, leave=number, follows_shared=mask),
    )


def compare(
    session: Session, examples: Examples, objective: Objective, *, backbone: str, n_steps: int
) -> dict[str, dict[str, Any]]:
    """GFLOPs per example, tokens and shapes of each side, on the same rows."""
    flops, steps = gradient_flops(backbone), rows_of_steps(session, examples, n_steps)
    batches = {"published": [batch for rows in steps for batch in published(session, examples, rows)]}
    for name, packing in SIDES.items():
        side = with_train(session, packing=packing)
        packs = choose_packs(side, objective, TrainPlan(side, len(examples)), train=examples, valid=examples)
        batches[name] = [
            batch for rows in steps for batch in micro_batches(side, objective.annotations, examples, rows, packs=packs)
        ]
    n_rows = sum(map(len, steps))
    needed = {name: sum(map(flops, made)) / n_rows for name, made in batches.items()}
    return {
        name: {
            "gigaflops_per_example": round(needed[name] / 1e9, 1),
            "published_in_proportion": round(needed["published"] / needed[name], 2),
            "tokens_per_example": round(sum(map(_tokens, made)) / n_rows),
            "shapes": len(Counter(map(shape_of, made))),
        }
        for name, made in batches.items()
    }


def _tokens(batch: TextBatch) -> int:
    """Tokens through the model, padding included."""
    return len(batch.shared_prefix) + batch.prompt.size + (0 if batch.pack_trees else batch.target.size)


def main() -> None:
    """Entry point."""
    values, columns = flags.FLAGS, dict[str, dict[str, Any]]()
    for name, shuffle in ((BOOKS, "rows"), (SCIENTIFIC, "users")):
        with prepared(name) as data:
            session = common.make_session(data, common.TINY_MODEL, tokenizer=values.tokenizer)
            session = with_train(session, shuffle=shuffle)
            model = replace(session.settings.model, path="", config=values.backbone)  # for the choice of a width
            session = replace(session, settings=replace(session.settings, model=model))
            examples = session.examples(session.rows("train"))
            objective = session.method.objective(session.context(session.index))
            found = compare(session, examples, objective, backbone=values.backbone, n_steps=values.steps)
        columns |= {f"{name}, {side}": figures for side, figures in found.items()}
    common.report("packing", {"backbone": values.backbone, "steps": values.steps}, columns)


if __name__ == "__main__":
    flags.DEFINE_string("backbone", "qwen2.5-1.5b", "Shape of the model: a name, or a Hugging Face folder.")
    flags.DEFINE_string("tokenizer", str(common.QWEN_TOKENIZER), "Folder of the tokenizer.")
    flags.DEFINE_integer("steps", 8, "Steps of 128 rows.", lower_bound=1)
    run_main(main)
