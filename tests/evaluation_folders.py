"""Evaluations made by hand, and the program that compares them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from igd_jax.core.io import write_json
from igd_jax.evaluation.evaluations import read_evaluation
from igd_jax.evaluation.metrics import mean_metrics
from igd_jax.evaluation.predictions import Prediction, Result, Target, write_predictions
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord, write_record

N_ROWS, N_RESULTS = 60, 3


def write_evaluation(
    folder: Path, rank, *, ks=(1, 3), user="u", with_metrics=True, config=None, candidates=None, step=18, data=None
):
    """An evaluation whose row r hits at rank[r] (-1: not at all); each title is shared by two items."""
    folder.mkdir(parents=True)
    predictions = []
    for row, place in enumerate(rank):
        names = [("other", f"i{row}") if j == place else (f"x{j}", f"y{j}") for j in range(N_RESULTS)]
        ranked = tuple(Result(items, f"T{j}", -float(j), (1,)) for j, items in enumerate(names))
        target = Target((f"i{row}",), f"Title {row}", (row % 2 == 0,))
        predictions.append(Prediction(row, f"{user}{row}", target, ranked))
    write_predictions(folder / "predictions.jsonl", predictions)
    write_record(folder / "env.json", EvaluationRecord(CheckpointRecord(step, None), data, {"commit": None}))
    if with_metrics:
        baseline = {f"{metric}@{k}": 0.125 for metric in ("hr", "ndcg") for k in ks}
        counts = {"n": len(rank), "invalid": 0, "protocol": "rows", "popularity_baseline": baseline}
        told = {} if candidates is None else {"candidates": candidates}
        write_json(folder / "metrics.json", mean_metrics(np.array(rank), ks) | counts | told)
    if config is not None:
        write_json(folder / "config.json", config)
    return folder


def read(*folders):
    return [read_evaluation(str(folder), folder) for folder in folders]


def run_command(cwd, *arguments):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "igd_jax.compare", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def assert_one_line_error(result, *words):
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert all(word in result.stderr for word in words), result.stderr
