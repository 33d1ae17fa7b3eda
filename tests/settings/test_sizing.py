"""Where nothing says how large the model is, the device does, and the run keeps it."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny_run
from batches import text_batch
from runs import session_of

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.methods import load_method
from igd_jax.session import cost
from igd_jax.session.cost import make_advice
from igd_jax.settings.config_flags import check_workdir, config_json
from igd_jax.settings.settings import settings_from
from igd_jax.settings.sizing import sized

NO_MODEL = {"model.path": ""}


def _size(tiny, workdir, changes) -> str:
    settings = settings_from(tiny_run.tiny_config(tiny, changes))
    method = load_method(settings.method.name, settings.method.args)
    return sized(settings, method, Workdir(str(workdir))).model.config


def test_a_size_that_is_given_wins_and_else_the_device_decides_in_one_line(tiny, tmp_path, capsys, monkeypatch):
    assert _size(tiny, tmp_path, NO_MODEL | {"model.config": "nano"}) == "nano"
    assert _size(tiny, tmp_path, {}) == ""  # the folder decides
    sasrec = {"method.name": "sasrec", "method.args": {}}
    assert _size(tiny, tmp_path, NO_MODEL | sasrec) == ""
    assert capsys.readouterr().out == ""
    _size(tiny, tmp_path, sasrec)
    told = "model: sasrec has one of its own, whatever config.model.path and config.model.config say\n"
    assert capsys.readouterr().out == told
    _size(tiny, tmp_path, {"model.config": "nano"})
    assert capsys.readouterr().out == "model: that of config.model.path, whatever config.model.config (nano) says\n"
    assert _size(tiny, tmp_path, NO_MODEL) == "pico"
    told = (
        "model: pico, as config.model has no path and there is only a CPU; another size: --config.model.config=mini\n"
    )
    assert capsys.readouterr().out == told
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _size(tiny, tmp_path, NO_MODEL) == "mini"
    assert "mini, as config.model has no path and there is an accelerator; another" in capsys.readouterr().out


def test_a_run_keeps_its_size_wherever_it_goes_on(tiny, tmp_path, capsys):
    run, config = Workdir(str(tmp_path)), tiny_run.tiny_config(tiny, NO_MODEL)
    run.config.write_text(json.dumps(config_json(tiny_run.tiny_config(tiny, NO_MODEL | {"model.config": "mini"}))))
    check_workdir(config, run)
    assert _size(tiny, tmp_path, NO_MODEL) == "mini"
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match=r"another config, model.config: 'mini' there, 'nano' here"):
        check_workdir(tiny_run.tiny_config(tiny, NO_MODEL | {"model.config": "nano"}), run)


def test_a_long_training_on_a_cpu_comes_with_a_flag_that_shortens_it(tiny, tmp_path, monkeypatch):
    batch = jax.tree.map(np.asarray, text_batch([[1] * 40, [2] * 30]))
    session = session_of(tiny_run.tiny_config(tiny, NO_MODEL | {"model.config": "mini"}), tmp_path)
    advice = make_advice(session, batch)
    assert advice(3500.0, 1.0) == ""
    assert (
        advice(360_000.0, 1.0) == "; --config.model.config=pico would take about 1 h 18 min"
    )  # 77 times fewer operations
    model = replace(session.settings.model, config="pico")
    small = make_advice(replace(session, settings=replace(session.settings, model=model)), batch)
    assert small(10_000.0, 2.5) == "; --config.train.num_steps=480 would take about 20 min"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert advice(360_000.0, 1.0) == ""


def test_an_accelerator_that_is_half_empty_comes_with_the_rows_that_it_has_room_for(tiny, monkeypatch):
    def note(total, **changes):
        fields = {"train.global_batch_size": 96, "train.micro_batch_size": 8, "loss.normalizer": "global"} | changes
        settings = settings_from(tiny_run.tiny_config(tiny, fields))
        return cost._note(settings, 10, total=total, there=200)

    assert "more than there is" in note(201)
    assert note(30) == ""  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    told = "there is room for config.train.micro_batch_size={}, which trains faster, with the same losses"
    assert note(30).startswith(told.format(32))  # 20 beside 80 are half of 200; 64 rows do not divide 96
    assert note(71).startswith(told.format(16))
    assert (
        note(91) == note(30, **{"train.micro_batch_size": 96}) == note(30, **{"loss.normalizer": "micro_batch"}) == ""
    )
