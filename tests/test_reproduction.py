"""The published search, reproduced on the command line: raw files in, the authors' own lists and scores out."""

import json

import pytest
from command import run_process


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "length_penalty"), [(0.0, 0.0), (0.2, 1.0)])
def test_titles_and_scores_of_the_published_search(shared, books, tmp_path, alpha, length_penalty):
    golden = json.loads((shared / "golden/igd_amazon_books/igd_decoding.json").read_text(encoding="utf-8"))
    (run,) = [
        run
        for run in golden["runs"]
        if (run["alpha"], run["length_penalty"], run["temperature"]) == (alpha, length_penalty, 1.0)
    ]
    done = run_process(
        "evaluate",
        "--config=configs/igd.py:books",
        f"--workdir={tmp_path}",
        f"--config.data.dir={books}",
        f"--config.model.path={shared / 'models/tiny-qwen2-books'}",
        f"--config.decode.alpha={alpha}",
        f"--config.decode.length_penalty={length_penalty}",
        f"--config.decode.num_beams={run['num_beams']}",
        f"--config.decode.max_new_tokens={run['max_new_tokens']}",
    )
    assert (done.code, done.err) == (0, "")
    lines = (tmp_path / "eval" / "test" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    assert [line["target"]["title"] for line in predictions] == golden["targets"]
    for line, theirs in zip(predictions, run["results"], strict=True):
        scores = dict(zip(theirs["titles"], theirs["scores"], strict=True))
        ours = {result["title"]: result["score"] for result in line["ranked"]}
        assert ours == pytest.approx(scores, abs=1e-4)
        # Titles may change places only where the published scores are as good as equal.
        assert [scores[title] for title in ours] == pytest.approx(theirs["scores"], abs=1e-5)
