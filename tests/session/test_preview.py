"""While it trains, a run shows what it would recommend to one user, and trains no differently for that."""

import re

import tiny_run
from runs import train_tiny, without_speed

from igd_jax.core.io import Workdir
from igd_jax.data.prepared import load
from igd_jax.decoding import engine
from igd_jax.train import train

LINE = re.compile(r"sample of step (\d): after (.+) came (.+), (none|number \d) of the \d+ recommended: 1\. '(.+)', 2")


def test_each_evaluation_shows_a_sample_with_one_program_and_trains_no_differently(tiny, tmp_path, capsys):
    changes = {"train.num_steps": 2, "train.eval_every_steps": 1}
    n_before = engine.generate._cache_size()
    train_tiny(tiny, tmp_path / "shown", changes | {"train.show_sample": True})
    told = capsys.readouterr().out
    assert engine.generate._cache_size() - n_before == told.count("compiling the search of a sample") == 1
    valid = load(tiny / "data").splits["valid"]
    history = [repr(tiny_run.TITLES[item]) for item in valid.history[0]]
    (first, *_), (second, after, came, _, title) = LINE.findall(told)
    assert (first, second) == ("1", "2")
    assert (after, came) == (" + ".join(history[-3:]), repr(tiny_run.TITLES[valid.target[0]]))
    assert title in tiny_run.TITLES
    train_tiny(tiny, tmp_path / "plain", changes)
    assert "sample" not in capsys.readouterr().out
    assert without_speed(tmp_path / "shown") == without_speed(tmp_path / "plain")


def test_a_model_that_reads_items_shows_one_too_and_one_that_needs_scores_none(tiny, tmp_path, capsys):
    config = tiny_run.sasrec_config(tiny)
    config.train.update(num_steps=1, show_sample=True)
    train(config, Workdir(str(tmp_path / "sasrec")))
    assert LINE.search(capsys.readouterr().out)
    scored = {"method.name": "d3", "method.args": {"lam": 0.5}, "decode.collaborative": "popularity"}
    train_tiny(tiny, tmp_path / "d3", scored | {"train.num_steps": 1, "train.show_sample": True})
    assert "sample" not in capsys.readouterr().out
