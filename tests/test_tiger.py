"""Codes on a T5, from published files to lists: those of LETTER-TIGER's code, by its weights."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_calls import read_written, scores_of
from golden_figures import golden_arrays, golden_figures
from letter_files import save_golden_data, save_golden_t5

from configs import tiger
from igd_jax.core.io import Workdir
from igd_jax.data.prepared import save
from igd_jax.data.sources.letter import read
from igd_jax.evaluate import evaluate


@pytest.mark.parametrize(("num_beams", "search"), [(10, "jump"), pytest.param(20, "stepwise", marks=pytest.mark.slow)])
def test_lists_scores_and_metrics_are_those_of_the_authors_code(tmp_path: Path, num_beams, search):
    folders = [tmp_path / name for name in ("files", "model", "run")]
    for folder in folders:
        folder.mkdir()
    files, model, run = folders
    save(read(save_golden_data(files)), tmp_path / "data")
    config = tiger.get_config()
    config.data.dir, config.model.path = str(tmp_path / "data"), str(save_golden_t5(model))
    config.decode.update(num_beams=num_beams, search=search, batch_size=8)
    config.eval.ks = (1, 5, 10)
    evaluate(config, Workdir(str(run)), name="test")
    predictions, metrics = read_written(run, "test")
    theirs, told = golden_arrays("tiger"), golden_figures("tiger")
    tokens = np.array([[result["tokens"] for result in line["ranked"]] for line in predictions])
    np.testing.assert_array_equal(tokens, theirs[f"tokens_{num_beams}"])
    np.testing.assert_allclose(scores_of(predictions), theirs[f"scores_{num_beams}"], rtol=0, atol=1e-5)
    for name in ("hit@1", "hit@5", "hit@10", "ndcg@5", "ndcg@10"):
        assert metrics[name.replace("hit", "hr")] == pytest.approx(told["metrics"][str(num_beams)][name])
