"""Small valid inputs of every kind, which are copied into each case and damaged there."""

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from igd_jax.core.io import Workdir
from igd_jax.evaluate import evaluate
from igd_jax.recommend import make_recommender
from igd_jax.session.answers import answer_file
from igd_jax.train import train
from tests import tiny_run

DAY, START = 86_400, 1_480_000_000
EVENTS = [(f"u{n % 7}", f"i{n * n % 11}", START + n * DAY, f"Title {n * n % 11}, é") for n in range(60)]
CHANGES = {
    "train.num_steps": 4,
    "train.eval_every_steps": 2,
    "train.checkpoint_every_steps": 2,
    "train.log_every_steps": 1,
    "eval.max_examples": 4,
}


def make(folder: Path) -> None:
    """Write all inputs."""
    make_without_run(folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        _train_and_answer(Path())  # paths in a run are relative: commands are run where it lies


def make_without_run(here: Path) -> None:
    """Write the inputs that are not trained, in a second."""
    here.mkdir(parents=True)
    tiny_run.save_data(here / "data")
    tiny_run.save_data(here / "out", seed=1)
    tiny_run.save_model(here / "model")
    _raw(here / "raw")
    (here / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in _requests()))
    (here / "candidates.txt").write_text("\n".join(tiny_run.ITEM_IDS[2:12]) + "\n")
    (here / "experiment.py").write_text(_EXPERIMENT)


_EXPERIMENT = """\
from configs import common


def get_config():
    config = common.get_config()
    config.method.name = "igd"
    config.method.args.beta = 0.1
    config.data.dir = "data"
    config.model.path = "model"
    config.train.num_steps = 2
    config.train.micro_batch_size = 8
    config.train.global_batch_size = 8
    config.train.warmup_steps = 0
    config.decode.num_beams = 4
    config.eval.ks = (1, 3)
    config.eval.max_examples = 4
    return config
"""


def _train_and_answer(here: Path) -> None:
    """A run with two evaluations, and the answers to the requests."""
    config, workdir = tiny_run.tiny_config(here, CHANGES), Workdir("run")
    train(config, workdir)
    for name in ("a", "b"):
        evaluate(config, workdir, name=name)
    answer_file(lambda: make_recommender(config, workdir), here / "requests.jsonl", here / "answers.jsonl", k=None)


def _requests() -> list[dict]:
    titles, ids = tiny_run.TITLES, tiny_run.ITEM_IDS
    return [
        {"history": titles[:2]},
        {"id": "two", "history": [ids[4]], "exclude_history": True},
        {"history": [titles[5], "a title of my own"], "candidates": ids[3:9]},
    ]


def _raw(folder: Path) -> None:
    """The same events as each source has them."""
    for name in ("csv", "d3", "ml-100k", "ml-1m", "amazon", "amazon2014", "hub"):
        (folder / name).mkdir(parents=True)
    columns = ("user", "item", "timestamp", "title")
    _write_csv(folder / "csv" / "my.csv", columns, EVENTS)
    _write_csv(folder / "hub" / "my.csv", columns, EVENTS)
    table = pa.table({name: list(values) for name, values in zip(columns, zip(*EVENTS, strict=True), strict=True)})
    pq.write_table(table, folder / "hub" / "my.parquet")
    _write_lines(folder / "hub" / "my.jsonl", [json.dumps(dict(zip(columns, event, strict=True))) for event in EVENTS])
    ratings = [(user[1:], item[1:], "5", str(when)) for user, item, when, _ in EVENTS]
    films = sorted({(item[1:], title) for _, item, _, title in EVENTS})
    _write_lines(folder / "ml-100k" / "u.data", ["\t".join(rating) for rating in ratings])
    _write_lines(folder / "ml-100k" / "u.item", ["|".join((*film, "", "", "", *"01" * 9, "1")) for film in films])
    _write_lines(folder / "ml-1m" / "ratings.dat", ["::".join(rating) for rating in ratings])
    _write_lines(folder / "ml-1m" / "movies.dat", ["::".join((*film, "Drama|War")) for film in films])
    reviews = [{"reviewerID": user, "asin": item, "unixReviewTime": when} for user, item, when, _ in EVENTS]
    metas = [{"asin": f"i{item}", "title": title, "description": ["so", "long"], "brand": "B"} for item, title in films]
    of_2014 = [meta | {"description": "so long", "categories": [["Toys", "Kites"], ["Sale"]]} for meta in metas]
    packed = {
        "amazon/Toys_5": reviews,
        "amazon/meta_Toys": metas,
        "amazon2014/reviews_Toys_5": reviews,
        "amazon2014/meta_Toys": of_2014,  # JSON of texts and lists is a Python literal, too
    }
    for name, records in packed.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(text.encode()))
    _write_d3(folder / "d3", dict(films))


def _write_d3(folder: Path, titles: dict[str, str]) -> None:
    columns = ("user_id", "history_item_title", "item_title", "history_item_id", "item_id", "timestamp")
    for number, split in enumerate(("train", "valid", "test")):
        rows = []
        for n in range(10 * number, 10 * number + 10):
            past, item = [EVENTS[n][1][1:], EVENTS[n + 1][1][1:]], EVENTS[n + 2][1][1:]
            history = [titles[each] for each in past]
            rows.append((f"u{n}", history, titles[item], list(map(int, past)), item, EVENTS[n][2]))
        _write_csv(folder / f"Toys.{split}.csv", columns, rows)
    _write_lines(folder / "Toys.info.txt", [f"{title}\t{item}" for item, title in titles.items()])


def _write_csv(path: Path, columns: tuple, rows: list[tuple]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def copy(pristine: Path, names: tuple[str, ...], case: Path) -> Path:
    """A case's own copy of some inputs, with a victim beside and above it; returns the folder to run in."""
    here = case / "home" / "here"
    here.mkdir(parents=True)
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        source = pristine / name
        if source.is_dir():
            shutil.copytree(source, here / name)
        else:
            shutil.copy(source, here / name)
    for place in (here, here.parent):
        (place / "victim").mkdir()
        (place / "victim" / "thesis.txt").write_text("years of work\n")
    (here / "loop").symlink_to("loop")
    os.mkfifo(here / "pipe")
    return here
