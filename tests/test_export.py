"""Exported folders: what transformers finds in them is the run, list by list, and what is not in them is told."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from carried import carried
from command import ROOT, one_line, run_here
from flax import struct
from tiny_run import ITEM_IDS, TITLES

from igd_jax import Recommender, evaluate
from igd_jax import export as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.methods.base import search_engine
from igd_jax.methods.igd import IGD
from igd_jax.models.decoder_weights import NAMES
from igd_jax.models.hf_save import tensors_of
from igd_jax.session import exported, exporting
from igd_jax.settings.config_flags import load_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@struct.dataclass
class Flattened:
    """The edge score of docs/howto/own_method.md."""

    floor: Any

    def of_rows(self, batch):
        return ()

    def __call__(self, logp, edge, rows):
        return jnp.maximum(logp, self.floor)


HISTORIES = [TITLES[4:6], [TITLES[0]], TITLES[10:13], ["My own", TITLES[7]], TITLES[2:4], TITLES[1:3], TITLES[15:18]]
HISTORIES.append([TITLES[19]])


def export(workdir: Path, output: Path, changes: dict | None = None, **options) -> list[str]:
    config = load_config(None, Workdir(str(workdir)))
    config.update_from_flattened_dict(changes or {})
    return program.export(config, Workdir(str(workdir)), str(output), **options)


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory) -> Path:
    """The run as a folder, with an alpha that changes lists."""
    folder = tmp_path_factory.mktemp("exported") / "folder"
    done = run_here(program, f"--workdir={trained}", f"--output={folder}", "--config.decode.alpha=0.4")
    assert (done.code, done.err) == (0, ""), done.err
    assert {
        line for line in done.out.splitlines() if line.startswith("note: ") and "AutoTokenizer" not in line
    } == set()
    return folder


@pytest.fixture(scope="module")
def recommender(trained: Path) -> Recommender:
    return Recommender.load(trained, {"decode.alpha": 0.4})


@pytest.fixture(scope="module")
def model(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def there(folder: Path) -> ModuleType:
    return carried(folder)


def lists_of(recommender: Recommender, histories=HISTORIES) -> tuple[list[list[str]], np.ndarray]:
    answers = recommender.recommend([{"history": history} for history in histories])
    titles = [[result.title for result in answer.results] for answer in answers]
    return titles, np.array([[result.score for result in answer.results] for answer in answers])


def assert_same_lists(ours, theirs) -> None:
    titles, scores = ours
    assert [[result["title"] for result in user] for user in theirs] == titles
    np.testing.assert_allclose([[result["score"] for result in user] for user in theirs], scores, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- what is there
def test_weights_in_float32_are_those_of_the_run_to_the_bit(recommender, model):
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = dict(tensors_of(recommender.trained.model, NAMES, np.float32))
    assert found.keys() - expected.keys() <= {"lm_head.weight"}  # tied
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (recommender.session.tokenizer.eos,) * 2


def test_the_trie_is_that_of_the_run_and_every_row_leads_to_its_items(folder, recommender, there):
    index, items = recommender.index, there.Items(folder)
    arrays = np.load(folder / "trie.npz", allow_pickle=False)
    assert set(arrays.files) == {"token", "branch", "child_start", "child", "gain", "factor", "leaf", "row"}
    for name in ("gain", "factor"):
        np.testing.assert_array_equal(arrays[name], getattr(index.gain, name))
    rows = np.flatnonzero(index.is_candidate)
    assert len(items.rows) == len(rows)
    for number, row in enumerate(rows.tolist()):
        tokens = index.catalog.tokens[row].tolist()
        assert items.row([*tokens, items.settings["eos"]]) == number
        assert items.row(tokens[:-1]) == items.row(tokens[1:]) == items.row([*tokens[:-2], 5, tokens[-1]]) == -1
        assert [item["item"] for item in items.rows[number]] == [ITEM_IDS[item] for item in index.items_of(row)]
        assert {item["title"] for item in items.rows[number]} == {index.title_of_row(row)}


def test_prompts_are_those_of_the_run_and_are_cut_like_them(recommender, folder, there):
    items, session = there.Items(folder), recommender.session
    end = items.settings["prompt"]["end"]
    assert session.tokenizer.decode(end).endswith("Next:\n")
    for history in (*HISTORIES, TITLES, ["<|endoftext|>"], ["ends\n"]):
        ids = session.prompts.of_texts([history])[0].tolist()
        assert items.prompt(history) == ids
        assert ids[-len(end) :] == end
    assert items.settings["prompt"]["room"] == 512 - recommender.index.longest
    shorter = (session.prompts.of_texts([(TITLES * 9)[begin:]])[0].tolist() for begin in range(1, len(TITLES) * 9))
    longest = next(ids for ids in shorter if len(ids) <= items.settings["prompt"]["room"])
    assert items.prompt(TITLES * 9) == longest


# --------------------------------------------------------------------------------------------------------- equal lists
def test_transformers_finds_our_lists_in_the_folder(recommender, folder, model, there):
    assert_same_lists(lists_of(recommender), there.recommend(model, there.Items(folder), HISTORIES))


def test_a_recommender_of_the_folder_gives_the_lists_of_the_run(recommender, folder):
    opened, before = Recommender.load(folder), sorted(folder.iterdir())
    (titles, scores), (same, equal) = lists_of(recommender), lists_of(opened)
    assert (titles, opened.trained.step) == (same, None)
    np.testing.assert_array_equal(scores, equal)
    assert sorted(folder.iterdir()) == before
    changed = Recommender.load(folder, {"decode.candidates": "train", "decode.alpha": 0.0})
    assert int(changed.index.candidates.sum()) == int(opened.index.candidates.sum()) - tiny_run.N_COLD
    with pytest.raises(InputError, match=r"holds a run of another config, train.seed: \d+ there, \d+ here"):
        Recommender.load(folder, {"train.seed": 3})


def test_a_run_is_opened_where_its_first_model_has_moved_to(tiny, trained, recommender, tmp_path):
    shutil.copytree(tiny / "model", tmp_path / "moved")
    moved = Recommender.load(trained, {"decode.alpha": 0.4, "model.path": str(tmp_path / "moved")})
    (titles, scores), (same, equal) = lists_of(recommender), lists_of(moved)
    assert titles == same
    np.testing.assert_array_equal(scores, equal)


def test_a_folder_of_other_candidates_says_among_which_it_explains(trained, tmp_path, capsys):
    export(trained, tmp_path / "some", {"decode.candidates": "train"})
    capsys.readouterr()
    Recommender.load(tmp_path / "some")
    told = (
        "note: the folder holds the candidates train, and not those of training, catalogue: lists are those of the run"
    )
    assert told in capsys.readouterr().out


def test_an_evaluation_of_the_folder_is_that_of_the_run(tiny, folder, plain, tmp_path):
    config = tiny_run.tiny_config(tiny, {"model.path": str(folder)})
    assert evaluate.evaluate(config, Workdir(str(tmp_path / "run")), name="again") == plain[1]


@pytest.mark.slow
def test_greedy_search_and_other_scores_are_ours_too(trained, tmp_path, there):
    changes = {"decode.num_beams": 1, "eval.ks": (1,), "decode.alpha": 0.7, "decode.normalize": "children"}
    changes |= {"decode.temperature": 1.5, "decode.length_penalty": 0.0}
    export(trained, tmp_path / "greedy", changes)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "greedy", local_files_only=True)
    ours = lists_of(Recommender.load(trained, changes))
    assert_same_lists(ours, there.recommend(model, there.Items(tmp_path / "greedy"), HISTORIES))


@pytest.mark.slow
@pytest.mark.parametrize("length_penalty", [-5.0, 0.0, 10.0])
@pytest.mark.parametrize("n_items", [3, 22])
def test_lists_are_ours_with_any_length_penalty_and_with_fewer_items_than_beams(
    trained, tmp_path, there, length_penalty, n_items
):
    """Such a beam is worth -1e9 to transformers, before or after the sum is divided by a power of the length."""
    (tmp_path / "some.txt").write_text("\n".join(ITEM_IDS[:n_items]))
    changes = {"decode.length_penalty": length_penalty, "decode.candidates": str(tmp_path / "some.txt")}
    export(trained, tmp_path / "out", changes)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    titles, scores = lists_of(Recommender.load(trained, changes))
    found = there.recommend(model, there.Items(tmp_path / "out"), HISTORIES)
    assert [[result["title"] for result in user] for user in found] == titles
    np.testing.assert_allclose([[result["score"] for result in user] for user in found], scores, rtol=1e-4)
    assert {len(user) for user in found} == {min(n_items, 4)}


# --------------------------------------------------------------------------------------------- what is told and refused
def test_an_output_that_is_not_empty_is_refused_and_left_as_it_is(trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    line = one_line(run_here(program, f"--workdir={trained}", f"--output={tmp_path / 'full'}"))
    assert f"--output={tmp_path / 'full'} exists and is not an empty folder; name another one, or remove it" in line
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_an_output_that_cannot_be_made_is_refused_before_the_model_is_read(trained, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(program, "set_up_to_decode", lambda *_: pytest.fail("it was read"))
    with pytest.raises((InputError, OSError), match="file"):
        export(trained, tmp_path / "file" / "out")


def test_a_command_that_fails_leaves_nothing(trained, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(exporting, "write_json", fail)
    with pytest.raises(OSError, match="full"):
        export(trained, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    line = one_line(run_here(program, f"--workdir={trained}", f"--output={tmp_path / 'out'}", "--adapter"))
    assert "--adapter asks for adapters alone, but config.model.lora_rank is 0: there are none; leave it out" in line
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_item_ids_has_no_form_elsewhere(sasrec_run, tmp_path):
    line = one_line(run_here(program, f"--workdir={sasrec_run}", f"--output={tmp_path / 'out'}"))
    assert line.endswith("the run holds a model of sasrec, which no other program opens; nothing is exported")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("igd_jax.json", lambda text: text.replace('"format": 1', '"format": 9'), "is not of format 1, which this pro"),
        (
            "items.jsonl",
            lambda text: text.replace('"targets"', '"tragets"'),
            r"holds no items as they were exported \(",
        ),
        ("trie.npz", None, "holds no trie, which is not opened here; load the run"),
        ("trie.npz", lambda text: "no arrays", "trie.npz cannot be read as arrays of numbers"),
        ("items.jsonl", lambda text: text.replace('"targets": 4', '"targets": 9'), "is not the trie of items.jsonl"),
        ("run.json", lambda text: text.replace('"alpha": 0.4', '"alpha": 4'), "config.decode.alpha is 4"),
    ],
)
def test_a_folder_that_was_altered_is_refused(folder, tmp_path, file, change, message):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if change is None:
        (tmp_path / file).unlink()
    else:
        text = (tmp_path / file).read_text(encoding="utf-8", errors="replace")
        (tmp_path / file).write_text(change(text), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        Recommender.load(tmp_path)


def test_the_page_names_all_files_and_its_example_runs(folder, capsys):
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for path in folder.glob("*.*"):  # not __pycache__, which the example leaves
        assert f"`{path.name}`" in page, path.name
    (example,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(example.replace('"HF_DIR"', json.dumps(str(folder))), {})
    assert "'title': " in capsys.readouterr().out


def test_what_other_programs_will_not_have_is_told_and_d3_divides_the_logits(trained, tmp_path):
    changes = {"decode.collaborative": "popularity", "decode.temperature": 2.0, "decode.exclude_history": True}
    config = load_config(None, Workdir(str(trained)))
    config.update_from_flattened_dict(changes)
    config.method = {"name": "d3", "args": {"lam": 0.5}}
    notes = program.export(config, Workdir(str(trained)), str(tmp_path / "out"), dtype="bfloat16")
    told = [note.split(":")[0].split(",")[0] for note in notes if not note.startswith("AutoTokenizer ")]
    assert told == [
        "weights are rounded from float32 to bfloat16",
        "scores of a collaborative source are not exported",
        "config.decode.allowed and exclude_history are not exported",
    ]
    settings = json.loads((tmp_path / "out" / "igd_jax.json").read_text(encoding="utf-8"))
    assert (settings["decode"]["temperature"], settings["decode"]["softmax_temperature"]) == (1.0, 2.0)
    assert settings["not_exported"] == notes


@pytest.mark.parametrize(
    ("score", "alpha", "normalize"),
    [
        (lambda index: Flattened(jnp.float32(-3)), 0.0, "vocabulary"),
        (lambda index: Flattened(jnp.float32(-3)), 0.0, "children"),
        (lambda index: rebalanced(index.gain, alpha=0.8, temperature=1.0), 0.0, "vocabulary"),
        (lambda index: rebalanced(index.gain, alpha=0.4, temperature=1.0), 0.4, "children"),
    ],
)
def test_an_edge_score_of_ones_own_is_not_exported_and_that_is_told(
    trained, tmp_path, monkeypatch, score, alpha, normalize
):
    def engine(self, context, model, options):
        return search_engine(context, model, options, edge_score=score(context.index))

    monkeypatch.setattr(IGD, "engine", engine)
    notes = export(trained, tmp_path / "out", {"decode.alpha": 0.4, "decode.normalize": normalize})
    settings = json.loads((tmp_path / "out" / "igd_jax.json").read_text(encoding="utf-8"))
    assert settings["decode"]["alpha"] == alpha
    told = "the edge score of igd is not exported: the logits processors rank by the model's log-probabilities, with"
    assert any(note.startswith(told) for note in notes) == (alpha == 0.0)
    assert settings["not_exported"] == notes


def test_sums_with_adapters_are_rounded_though_weights_were_not_wider(recommender):
    session = recommender.session
    model = replace(session.settings.model, lora_rank=2, param_dtype="bfloat16")
    tuned = replace(session, settings=replace(session.settings, model=model))
    merged, adapters = (list(exporting._losses(tuned, dtype="bfloat16", is_adapter=alone)) for alone in (False, True))
    assert [line.split(",")[0] for line in merged] == [
        "merged or quantised weights are rounded from float32 to bfloat16"
    ]
    assert [line.split(",")[0] for line in adapters] == [
        "adapters alone: igd_jax itself opens merged folders only",
        "adapters are rounded from float32 to bfloat16",
    ]


def test_a_prompt_without_room_is_refused_before_anything_is_written(tiny, tmp_path):
    shutil.copytree(tiny / "data", tmp_path / "data")
    shutil.copytree(tiny / "model", tmp_path / "model")
    tiny_run.set_positions(tmp_path / "model", 40)
    config = tiny_run.tiny_config(tmp_path, {"data.max_length": 40})
    with pytest.raises(InputError, match=r"has 33 tokens and the longest answer 9, but .* made for 40 positions; set "):
        program.export(config, Workdir(str(tmp_path / "none")), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_method_that_writes_freely_is_exported_but_its_lists_are_those_of_the_run_alone(trained, tmp_path):
    config = load_config(None, Workdir(str(trained)))
    config.method = {"name": "bigrec", "args": {}}
    notes = program.export(config, Workdir(str(trained)), str(tmp_path / "out"))
    assert "bigrec grounds free text; the logits processors search the trie instead" in notes
    with pytest.raises(InputError, match="is of a run of bigrec, which needs more for its lists than the folder holds"):
        Recommender.load(tmp_path / "out")


def test_titles_that_contain_the_end_of_a_prompt_are_found(recommender):
    index, end = recommender.index, exporting.prompt_end(recommender.session)
    assert not exporting.is_inside(end, index)
    assert not exporting.is_inside(list(range(99)), index)
    assert exporting.is_inside(index.catalog.tokens[3][1:4].tolist(), index)


def test_titles_may_hold_what_some_take_for_the_end_of_a_line(recommender, tmp_path):
    session = recommender.session
    titles = [f"{title}\u2028or\x85so" for title in session.prepared.titles]
    session = replace(session, prepared=replace(session.prepared, titles=titles))
    exporting._write_items(tmp_path / exported.ITEMS, session, recommender.index)
    assert exported._items(tmp_path, fingerprint="x")[0].titles == titles
