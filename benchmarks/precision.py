"""What weights of fewer bits cost: lists and loss of one model in float32, bfloat16, int8 and nf4.

    python -m benchmarks.precision [--base_steps=300] [--steps=200] [--seeds=3]

A small model learns the titles of the synthetic shop in float32 for `base_steps` steps and is exported. Its folder is
then ranked with as it is, in each precision, beside float32; and in each, adapters (rank 8) are tuned on it for `steps`
steps, the mean over `seeds` seeds. int8 and nf4 are computed with in bfloat16, as QLoRA does.
"""

import io
import math
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from benchmarks import common
from configs import quickstart
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.data.prepared import save
from igd_jax.evaluate import evaluate
from igd_jax.evaluation.evaluations import PREDICTIONS
from igd_jax.evaluation.predictions import read_predictions
from igd_jax.export import export
from igd_jax.models.layers import Linear
from igd_jax.prepare import prepare
from igd_jax.session.session import set_up
from igd_jax.settings.config_grid import changed
from igd_jax.settings.settings import settings_from
from igd_jax.train import train

NARROW = {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16"}
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": NARROW,
    "int8": NARROW | {"model.quantize": "int8"},
    "nf4": NARROW | {"model.quantize": "nf4"},
}
ADAPTERS = {"model.lora_rank": 8, "model.lora_alpha": 16, "train.learning_rate": 2e-3}


def make_base(data: Path, folder: Path, *, steps: int) -> ConfigDict:
    """Train and export the model; the config that reads it from `folder`, with adapters that change nothing yet."""
    config = changed(quickstart.get_config(), {"data.dir": str(data), "mesh.data": 1, "train.num_steps": steps})
    train(config, workdir := Workdir(str(folder.parent / "base")))
    export(config, workdir, str(folder))
    return changed(config, {"model.path": str(folder), **ADAPTERS})


def scores_of(workdir: Workdir) -> list[dict[str, float]]:
    """Titles of each list with their scores."""
    lists = read_predictions(workdir.eval("test") / PREDICTIONS)
    return [{result.title: result.score for result in one.ranked} for one in lists]


def beside(lists: list[dict[str, float]], exact: list[dict[str, float]]) -> dict[str, Any]:
    """How lists differ from those of float32."""
    kept = [
        (here[title], there[title]) for here, there in zip(lists, exact, strict=True) for title in here & there.keys()
    ]
    same_first = [next(iter(here)) == next(iter(there)) for here, there in zip(lists, exact, strict=True)]
    return {
        "titles_of_float32_kept": round(len(kept) / sum(map(len, exact)), 4),
        "first_titles_kept": round(statistics.mean(same_first), 4),
        "score_difference_nats": round(statistics.mean(abs(a - b) for a, b in kept), 4),
    }


def bytes_per_weight(config: ConfigDict, workdir: Workdir) -> float:
    """Memory of the linear maps of the layers, per weight."""
    session = set_up(settings_from(config), workdir)
    model = session.context(session.index).backbone()
    kernels = [module.kernel.get_value() for _, module in nnx.iter_modules(model) if isinstance(module, Linear)]
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(kernels))
    return n_bytes / sum(math.prod(kernel.shape) for kernel in kernels)


def measure(base: ConfigDict, scratch: Path, precision: str, *, steps: int, seeds: int) -> dict[str, Any]:
    """Figures of the folder as it is in a precision, and of adapters tuned on it."""
    config = changed(base, PRECISIONS[precision])
    untuned, exact = Workdir(str(scratch / precision)), Workdir(str(scratch / "float32"))
    metric = f"ndcg@{max(config.eval.ks)}"
    figures = {metric: round(evaluate(config, untuned, name="test")[metric], 4)}
    figures |= {"bytes_per_weight": round(bytes_per_weight(config, untuned), 4)}
    figures |= beside(scores_of(untuned), scores_of(exact))
    loss, ndcg = [], []
    for seed in range(1, seeds + 1):
        tuned = Workdir(str(scratch / f"{precision}-{seed}"))
        of_seed = changed(config, {"train.num_steps": steps, "train.seed": seed})
        loss.append(train(of_seed, tuned)["best_loss"])
        ndcg.append(evaluate(of_seed, tuned, name="test")[metric])
    for name, values in (("valid_loss", loss), (metric, ndcg)):
        figures[f"tuned_{name}"] = round(statistics.mean(values), 4)
        figures[f"tuned_{name}_spread"] = round(statistics.pstdev(values), 4)
    return figures


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        scratch = Path(folder)
        save(prepare("synthetic", path=None, options={"max_history": 3}), scratch / "data")
        base = make_base(scratch / "data", scratch / "model", steps=values.base_steps)
        columns = {name: measure(base, scratch, name, steps=values.steps, seeds=values.seeds) for name in PRECISIONS}
    settings = {"data": "synthetic test", "model": base.model.config, "adapters": ADAPTERS}
    settings |= {name: values[name].value for name in ("base_steps", "steps", "seeds")}
    common.report("precision", settings, columns)


if __name__ == "__main__":
    flags.DEFINE_integer("base_steps", 300, "Steps of the model before it is rounded.", lower_bound=1)
    flags.DEFINE_integer("steps", 200, "Steps of its adapters.", lower_bound=1)
    flags.DEFINE_integer("seeds", 3, "Runs of adapters in each precision.", lower_bound=1)
    run_main(main)
