"""The file for vLLM, in a stand-in for vLLM, which cannot be installed here: valid items only, with their scores."""

from pathlib import Path

import pytest
from carried import BatchUpdate, MoveDirectionality, carried, vllm_beam_search, vllm_of
from test_export import HISTORIES, export

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "folder"
    export(trained, folder, {"decode.alpha": 0.4, "decode.length_penalty": 0.0})
    return folder


def test_beams_write_items_with_the_scores_of_the_search(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    there = carried(folder)
    items = there.Items(folder)
    eos = items.settings["eos"]
    histories = HISTORIES[:3]
    expected = there.recommend(model, items, histories)
    with vllm_of(folder) as vllm:
        processor = vllm.ItemLogitsProcessor(None, torch.device("cpu"), False)
        assert not processor.is_argmax_invariant()
        for history, results in zip(histories, expected, strict=True):
            found = vllm_beam_search(model, processor, items.prompt(history), width=4, max_tokens=9, eos=eos)
            rows = [items.row(tokens) for tokens, _ in found]
            assert min(rows) >= 0
            assert [items.rows[row][0]["title"] for row in rows] == [result["title"] for result in results]
            assert [score for _, score in found] == pytest.approx([result["score"] for result in results], abs=1e-4)


def test_rows_of_the_batch_come_move_and_go(folder):
    items = carried(folder).Items(folder)
    first, second = items.prompt(HISTORIES[0]), items.prompt(HISTORIES[1])
    tokens = [token for token in range(304) if items.scores(torch.zeros(1, 304), [[]])[0, token] > -torch.inf]
    logits, output = torch.zeros(3, 304), [tokens[0]]
    start, after = (items.scores(logits[:1], [text])[0] for text in ([], output))
    only_end = items.scores(logits[:1], [[items.settings["eos"]]])[0]
    assert only_end[items.settings["eos"]] == 0
    assert (only_end > -torch.inf).sum() == 1
    with vllm_of(folder) as vllm:
        processor = vllm.ItemLogitsProcessor(None, torch.device("cpu"), False)

        def rows(*update):
            processor.update_state(BatchUpdate(*update) if update else None)
            return processor.apply(logits.clone())

        assert torch.equal(rows(), logits)
        written: list[int] = []
        found = rows(2, [], [(0, None, first, written), (1, None, second + output, []), (2, None, [5, 6], [])], [])
        assert torch.equal(found, torch.stack([start, after, only_end]))
        written += output
        assert torch.equal(rows()[0], after)
        found = rows(2, [2], [], [(0, 1, MoveDirectionality.SWAP), (1, 2, MoveDirectionality.UNIDIRECTIONAL)])
        assert torch.equal(found, torch.stack([after, logits[1], after]))
        found = rows(1, [0], [(1, None, None, [])], [])
        assert torch.equal(found, torch.stack([logits[0], only_end, after]))
