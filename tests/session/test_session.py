"""What a run is put together from: the rows of train that there are for it, and a mark of all of it."""

import os
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from runs import session_of

from configs import setrec
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.methods.setrec import INSTRUCTION, RESPONSE
from igd_jax.session import session
from igd_jax.session.input import micro_batches
from igd_jax.session.session import Session


def test_rows_that_are_evenly_spread_can_stand_for_all(tiny, tmp_path):
    run = session_of(tiny_run.tiny_config(tiny, {"data.max_examples": 20}), tmp_path)
    spread = run.prepared.splits["train"].take(np.arange(20) * tiny_run.N_ROWS["train"] // 20)
    assert len(run.rows("valid")) == tiny_run.N_ROWS["valid"]
    np.testing.assert_array_equal(run.rows("train").timestamp, spread.timestamp)
    np.testing.assert_array_equal(run.index.counts, np.bincount(spread.target, minlength=len(tiny_run.TITLES)))
    np.testing.assert_array_equal(run.seen, spread.seen(len(tiny_run.TITLES)))


def test_histories_of_items_are_cut_to_what_the_model_can_read_and_counted(tiny, tmp_path, capsys):
    config = tiny_run.tiny_config(tiny)
    config.method = setrec.get_config().method
    run = session_of(config, tmp_path)
    words = sum(map(len, run.tokenizer.encode([INSTRUCTION, RESPONSE])))
    assert run.most_items == (512 - words - 7) // 7
    run.__dict__["most_items"] = 2
    rows = run.rows("train")
    assert run.examples(rows, split="train").history.lengths.max() == 2 < rows.history.lengths.max()
    n_cut = (rows.history.lengths > 2).sum()
    assert f"{n_cut:,} of {len(rows):,} histories of train cut: over 2 items" in capsys.readouterr().out


def test_the_fingerprint_of_a_run_is_that_of_its_rows(tiny, tmp_path, monkeypatch):
    """A run on as many other rows, such as the first ones, is another one; a limit beyond all rows is none."""

    def mark(limit):
        return session_of(tiny_run.tiny_config(tiny, {"data.max_examples": limit}), tmp_path).fingerprint

    some, more, all_rows = mark(20), mark(21), mark(0)
    assert len({some, more, all_rows}) == 3
    assert mark(tiny_run.N_ROWS["train"] + 1) == all_rows
    monkeypatch.setattr(session, "evenly_spaced", lambda n, limit: np.arange(limit))
    assert mark(20) != some


def _batches(run: Session) -> list[np.ndarray]:
    examples = run.examples(run.rows("train"))
    objective = run.method.objective(run.context(run.index))
    return jax.tree.leaves(list(micro_batches(run, objective.annotations, examples, np.arange(len(examples)), step=0)))


def test_texts_are_tokenised_once_for_all_runs_on_the_data(tiny, tmp_path, monkeypatch, capsys):
    for name in ("data", "model"):
        shutil.copytree(tiny / name, tmp_path / name)
    config = tiny_run.tiny_config(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    expected = _batches(session_of(config, tmp_path / "first"))  # nothing can be written beside the data
    assert not (tmp_path / "data.tokens").exists()
    monkeypatch.undo()

    def check(workdir: str) -> None:
        for ours, theirs in zip(_batches(session_of(config, tmp_path / workdir)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    check("second")
    files = sorted((tmp_path / "data.tokens").iterdir())
    assert [file.name.split("-")[0] for file in files] == ["pieces", "titles"]
    with monkeypatch.context() as without:
        without.setattr(Tokenizer, "encode", lambda *_: pytest.fail("tokenised again"))
        check("third")
    files[0].write_bytes(files[0].read_bytes()[:-4])
    capsys.readouterr()
    check("fourth")
    assert f"{files[0]} is damaged; made again" in capsys.readouterr().out
