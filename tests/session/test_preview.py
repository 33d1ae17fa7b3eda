"""While it trains, a run shows what it would recommend to one user, and trains no differently for that."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from runs import train_tiny, without_speed

from igd_jax.core.io import Workdir
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import load, save
from igd_jax.decoding import engine
from igd_jax.session import preview
from igd_jax.session.batch import make_batch
from igd_jax.train import train
from igd_jax.training.checkpoint import Checkpoints

LINE = re.compile(r"sample of step (\d): after (.+) came (.+), (none|number \d) of the \d+ recommended: 1\. '(.+)', 2")


def test_each_evaluation_shows_a_sample_with_one_program_and_trains_no_differently(tiny, tmp_path, capsys):
    changes = {"train.num_steps": 2, "train.eval_every_steps": 1}
    engine.generate.clear_cache()  # which may hold the program of another test
    train_tiny(tiny, tmp_path / "shown", changes | {"train.show_sample": True})
    told = capsys.readouterr().out
    assert engine.generate._cache_size() == told.count("compiling the search of a sample") == 1
    valid = load(tiny / "data").splits["valid"]
    history = [repr(tiny_run.TITLES[item]) for item in valid.history[0]]
    (first, *_), (second, after, came, _, title) = LINE.findall(told)
    assert (first, second) == ("1", "2")
    assert (after, came) == (" + ".join(history[-3:]), repr(tiny_run.TITLES[valid.target[0]]))
    assert title in tiny_run.TITLES
    train_tiny(tiny, tmp_path / "plain", changes)
    assert "sample" not in capsys.readouterr().out
    assert without_speed(tmp_path / "shown") == without_speed(tmp_path / "plain")


@pytest.mark.slow
def test_a_sample_without_memory_costs_no_step_and_is_not_searched_again(tiny, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(preview.Sample, "_ranked", fail)
    changes = {"train.num_steps": 3, "train.eval_every_steps": 2, "train.show_sample": True}
    for step in (2, 3):
        with pytest.raises(MemoryError):
            train_tiny(tiny, tmp_path / "run", changes)
        assert Checkpoints(tmp_path / "run" / "checkpoints").newest_step == step
    assert train_tiny(tiny, tmp_path / "run", changes)["evaluated"] == 3


@pytest.mark.slow
def test_the_prompt_of_a_sample_does_not_depend_on_its_target(tiny, tmp_path, monkeypatch):
    """It has more tokens than the limit, which cuts prompts to train on by their targets."""
    data, prompts = load(tiny / "data"), []

    def noted(session, examples, *args, **options):
        prompts.append(session.tokenizer.decode(examples.prompt[0].tolist()))
        return make_batch(session, examples, *args, **options)

    monkeypatch.setattr(preview, "make_batch", noted)
    valid = data.splits["valid"].take(np.array([np.argmax(data.splits["valid"].history.lengths)]))
    for number, target in enumerate((0, 1, tiny_run.N_SOLD - 1)):
        splits = data.splits | {"valid": replace(valid, target=np.array([target], np.int32))}
        folder = tmp_path / str(number)
        shutil.copytree(tiny / "model", folder / "model")
        save(assemble(item_ids=data.item_ids, titles=data.titles, splits=splits, dropped={}, notes={}), folder / "data")
        tiny_run.set_positions(folder / "model", 56)
        changes = {"data.max_length": 56, "train.num_steps": 1, "train.show_sample": True}
        train(tiny_run.tiny_config(folder, changes), Workdir(str(folder / "run")))
    assert len(prompts) == 3
    assert len(set(prompts)) == 1
    assert prompts[0].startswith("Past items, oldest first:")


@pytest.mark.slow
def test_a_model_that_reads_items_shows_one_too_and_one_that_needs_scores_none(tiny, tmp_path, capsys):
    config = tiny_run.sasrec_config(tiny)
    config.train.update(num_steps=1, show_sample=True)
    train(config, Workdir(str(tmp_path / "sasrec")))
    assert LINE.search(capsys.readouterr().out)
    scored = {"method.name": "d3", "method.args": {"lam": 0.5}, "decode.collaborative": "popularity"}
    train_tiny(tiny, tmp_path / "d3", scored | {"train.num_steps": 1, "train.show_sample": True})
    assert "sample" not in capsys.readouterr().out
