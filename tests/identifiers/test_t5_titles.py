"""A T5 writes titles, too: trained, evaluated and asked."""

import json
from pathlib import Path

import pytest
from tiny_run import ITEM_IDS, TITLES, tiny_config

from igd_jax.core.io import Workdir
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.recommend import recommend
from igd_jax.train import train


@pytest.mark.slow
def test_a_t5_writes_titles(tiny: Path, t5_folder: Path, tmp_path: Path):
    config, workdir = tiny_config(tiny, {"model.path": str(t5_folder)}), Workdir(str(tmp_path / "run"))
    config.method = {"name": "sft", "args": {}}
    assert train(config, workdir)["best_step"] > 6  # the loss of valid falls
    assert evaluate(config, workdir, name="test")["invalid"] == 0
    tokenizer = load_tokenizer(t5_folder)
    lines = (workdir.eval("test") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for result in (result for line in lines for result in json.loads(line)["ranked"]):
        assert tokenizer.decode(result["tokens"]) == result["title"] + "\n"
        assert {TITLES[ITEM_IDS.index(item)] for item in result["items"]} == {result["title"]}
    answer = recommend(config, workdir, [TITLES[4], "a title of my own"], k=2)
    assert len(answer.results) == 2
    assert answer.notes == (
        "'a title of my own' is neither a title nor an item of the catalogue; the model reads it as plain text",
    )
