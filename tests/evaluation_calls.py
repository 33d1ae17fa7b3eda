"""What an evaluation wrote, and its analysis, as tests read them."""

import json
from pathlib import Path

import numpy as np
import tiny_run

from igd_jax.core.io import read_json

N_TEST = tiny_run.N_ROWS["test"]


def read_written(workdir: Path, name: str) -> tuple[list[dict], dict]:
    """Predictions and metrics of an evaluation of a run."""
    lines = (workdir / "eval" / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], read_json(workdir / "eval" / name / "metrics.json")


def titles_of(predictions: list[dict]) -> list[list[str]]:
    return [[result["title"] for result in line["ranked"]] for line in predictions]


def scores_of(predictions: list[dict]) -> np.ndarray:
    return np.array([[result["score"] for result in line["ranked"]] for line in predictions])


def columns_of(told: dict, figure: str) -> dict:
    """Columns of a figure in an analysis.json."""
    return told["figures"][figure]["columns"]
