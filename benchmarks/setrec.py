"""SETRec benchmark: one pass of SETRec against our trie beam search over titles, in one run.

    python -m benchmarks.setrec [--users=64] [--size=NAME] [--data=FOLDER] [--model=HF_FOLDER]

Both sides have the same backbone, candidates, users, batch size and list length, in float32 on all cores. They take
turns, and the speed is that of the median turn, without compilation. SETRec's own parts are random, and with ``--size``
the backbone is too, which changes the lists, but hardly the speed. Precomputed data (features of all titles, items'
tokens, the trie) is not timed. SETRec's lists must be those of a full ranking in NumPy.

The authors report 15 times the speed of identifiers that are token sequences, on Toys (arXiv 2502.10833).
"""

import statistics
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from benchmarks import common
from benchmarks.decoding import check, figures
from benchmarks.decoding_ours import Ours, choose_users, counting_ours
from benchmarks.decoding_peer import Lists
from configs import igd, setrec
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.data.examples import Examples
from igd_jax.models.setrec import SetModel
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from

REPEATS = 5


def make_config(data: Path, model: Path, *, size: str) -> ConfigDict:
    """Config of IGD as published for books, on one device; with a `size`, weights are random, and only the tokenizer of
    `model` is used."""
    config = igd.get_config("books")
    config.data.dir, config.tokenizer.path, config.mesh.data = str(data), str(model), 1
    config.model.path, config.model.config = ("", size) if size else (str(model), config.model.config)
    return config


def make_sessions(config: ConfigDict, workdir: Workdir) -> dict[str, Session]:
    """Sessions of the same run with either method."""
    one_pass = config.copy_and_resolve_references()
    one_pass.method = setrec.get_config().method
    return {name: set_up(settings_from(each), workdir) for name, each in (("setrec", one_pass), ("igd", config))}


def rank_all(side: Ours, examples: Examples, group: np.ndarray) -> Lists:
    """SETRec's lists for some users, by sorting all candidates in float64, from the model's queries and tokens."""

    @nnx.jit
    def vectors(model: SetModel, history: jnp.ndarray, mask: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        return model(model.tokens(history), mask), model.tokens(jnp.arange(model.tokens.n_items))

    batch, index, settings = side.batch(examples, group), side.index, side.session.settings
    queries, table = (np.asarray(x, np.float64) for x in vectors(side.model, batch.history, batch.history_mask))
    beta, k = settings.method.args["beta"], settings.decode.top_k
    of_items = (1 - beta) * queries[:, 0] @ table[:, 0].T
    of_items += beta * np.einsum("BZD,IZD->BI", queries[:, 1:], table[:, 1:], optimize=True)
    of_rows = np.full((len(group), len(index.catalog)), -np.inf)
    for item in np.flatnonzero(index.candidates).tolist():
        row = index.catalog.row_of_item[item]
        of_rows[:, row] = np.maximum(of_rows[:, row], of_items[: len(group), item])
    best = np.argsort(-of_rows, axis=1, kind="stable")[:, :k].tolist()
    return [[(side.title(row), float(scores[row])) for row in rows] for rows, scores in zip(best, of_rows, strict=True)]


def compare(
    sessions: dict[str, Session], *, n_users: int, repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Check and time both sides, and count their work: figures of each, and of both."""
    sides = {name: Ours(session) for name, session in sessions.items()}
    users = {name: choose_users(session, n_users) for name, session in sessions.items()}
    work = {}
    for name, side in sides.items():
        with counting_ours() as work[name]:
            side(*users[name])
    examples, groups = users["setrec"]
    agreement = check(sides["setrec"](examples, groups[:1]), rank_all(sides["setrec"], examples, groups[0]))
    passes = {name: lambda name=name: sides[name](*users[name]) for name in sides}
    common.interleaved(passes, repeats=1)  # compiles
    turns = [common.interleaved(passes, repeats=1) for _ in range(repeats)]
    median = {name: statistics.median(turn[name] for turn in turns) for name in sides}
    columns = {name: figures(work[name], median[name], n_users=len(examples), n_batches=len(groups)) for name in sides}
    return columns, {"users_per_second_ratio": round(median["igd"] / median["setrec"], 2), **agreement}


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    with common.prepared_folder(values.data) as data:
        config = make_config(data, Path(values.model), size=values.size)
        sessions = make_sessions(config, Workdir(str(data.parent)))  # an existing folder, so that features are cached
        columns, both = compare(sessions, n_users=values.users, repeats=REPEATS)
    args, index = sessions["setrec"].settings.method.args, sessions["igd"].index
    settings = {
        "data": f"{Path(values.data).name} test",
        "model": values.size or Path(values.model).name,
        "users": values.users,
        "titles": int(index.is_candidate.sum()),
        **{field: config.decode[field] for field in ("batch_size", "num_beams", "alpha", "max_new_tokens")},
        "n_semantic": args["n_semantic"],
        "beta": args["beta"],
    }
    common.report("setrec", settings, columns, **both)


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_integer("users", 64, "Users to recommend for, from the test split.", lower_bound=1)
    flags.DEFINE_string("size", "", "Named size of igd_jax/models/config.py with random weights; empty = --model.")
    run_main(main)
