"""Whether an exported folder gives transformers the lists of the run: its beam search beside ours.

    python -m benchmarks.export [--users=64] [--batch=16] [--alpha=0.2] [--data=FOLDER] [--model=HF_FOLDER]

The model is exported with the published recipe for books. transformers opens the folder as it is and searches with the
file that lies in it; our recommender searches with the model before the export, and with the folder. All three answer
the same histories, in float32.
"""

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from absl import flags
from transformers import AutoModelForCausalLM

from benchmarks import common
from configs import igd
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.export import export
from igd_jax.session.recommender import Recommender
from igd_jax.session.session import set_up_to_decode

Lists = list[list[tuple[str, float]]]


def histories_of(recommender: Recommender, n_users: int) -> list[list[str]]:
    """Titles before random rows of the test split."""
    rows, titles = recommender.session.rows("test"), recommender.session.prepared.titles
    chosen = np.random.default_rng(0).choice(len(rows), min(n_users, len(rows)), replace=False)
    return [[titles[item] for item in rows.history[row]] for row in np.sort(chosen).tolist()]


def ours(recommender: Recommender, histories: list[list[str]]) -> Lists:
    """Title and score of each result of our search."""
    answers = recommender.recommend({"history": history} for history in histories)
    return [[(result.title, result.score) for result in answer.results] for answer in answers]


def theirs(folder: Path, histories: list[list[str]], *, batch: int) -> Lists:
    """The same of transformers, with nothing but the folder."""
    sys.path.insert(0, str(folder))
    try:
        carried: Any = importlib.import_module("igd_transformers")
    finally:
        sys.path.remove(str(folder))
    items, model = carried.Items(), AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    groups = [histories[begin : begin + batch] for begin in range(0, len(histories), batch)]
    lists = [user for group in groups for user in carried.recommend(model, items, group)]
    return [[(result["title"], result["score"]) for result in user] for user in lists]


def agreement(first: Lists, second: Lists) -> dict[str, Any]:
    """Users with equal lists, and the largest difference of scores by rank."""
    same = sum([t for t, _ in a] == [t for t, _ in b] for a, b in zip(first, second, strict=True))
    differences = [abs(x - y) for a, b in zip(first, second, strict=True) for (_, x), (_, y) in zip(a, b, strict=True)]
    return {"same_lists": f"{same} of {len(first)}", "largest_score_difference": max(differences)}


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    with common.prepared_folder(values.data) as data, TemporaryDirectory() as scratch:
        config, workdir = igd.get_config("books"), Workdir(f"{scratch}/run")
        config.data.dir, config.model.path, config.mesh.data = str(data), values.model, 1
        config.decode.update(alpha=values.alpha, batch_size=values.batch)
        export(config, workdir, f"{scratch}/exported")
        recommender = Recommender(set_up_to_decode(config, workdir), workdir)
        histories = histories_of(recommender, values.users)
        before, exported = ours(recommender, histories), Path(scratch, "exported")
        with_theirs = agreement(before, theirs(exported, histories, batch=values.batch))
        with_folder = agreement(before, ours(Recommender.load(exported), histories))
    settings = {"data": f"{Path(values.data).name} test", "model": Path(values.model).name, "users": values.users}
    settings |= {"alpha": values.alpha, "num_beams": config.decode.num_beams}
    sides = {"transformers, exported folder": with_theirs, "igd_jax, exported folder": with_folder}
    common.report("export", settings, sides)


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_integer("users", 64, "Users to recommend for, from the test split.", lower_bound=1)
    flags.DEFINE_integer("batch", 16, "Users at a time.", lower_bound=1)
    flags.DEFINE_float("alpha", 0.2, "Discount of high-gain tokens.")
    run_main(main)
