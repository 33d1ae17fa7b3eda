"""Codes as identifiers: their ids, their prompts, and who refuses them."""

import json

import pytest
from evaluation_calls import read_written
from letter_files import save_golden_t5
from tiny_run import ITEM_IDS, TITLES, tiny_config

from igd_jax import Recommender
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.ragged import Ragged
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import load, save
from igd_jax.data.prompts import Prompts
from igd_jax.data.sources.letter import read
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.export import export
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.codes import Codes
from igd_jax.identifiers.titles import Titles
from igd_jax.recommend import recommend


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a"], vocab_size=257)


def source_of(tokenizer, tmp_path, codes: list[str] | None) -> Source:
    n_items = 3 if codes is None else len(codes)
    texts = {} if codes is None else {"code": codes}
    return Source([*"xyz"][:n_items], ["t"] * n_items, texts, tokenizer, tmp_path)


def test_each_part_is_one_new_id_in_sorted_order(tokenizer, tmp_path):
    codes = Codes(source_of(tokenizer, tmp_path, ["<a_2> <b_1>", "<a_10>,<b_1>", " <a_2><b_0> "]))
    first, eos = tokenizer.vocab_size, tokenizer.eos  # sorted: <a_10>, <a_2>, <b_0>, <b_1>
    assert [row.tolist() for row in codes.rows()] == [
        [first + 1, first + 3, eos],
        [first, first + 3, eos],
        [first + 1, first + 2, eos],
    ]
    assert [row.tolist() for row in codes.mentions()] == [row.tolist()[:-1] for row in codes.rows()]
    assert (codes.vocab_size, codes.texts) == (first + 4, None)
    assert [codes.names[first + number] for number in range(4)] == ["<a_10>", "<a_2>", "<b_0>", "<b_1>"]


@pytest.mark.parametrize(("codes", "told"), [(None, "3 of 3"), (["a", " ", "b"], "1 of 3 .* such as 'y'")])
def test_items_without_a_code_are_refused(tokenizer, tmp_path, codes, told):
    with pytest.raises(InputError, match=told):
        Codes(source_of(tokenizer, tmp_path, codes))


def test_ids_and_prompts_are_those_of_the_published_code(shared, tmp_path):
    golden = shared / "golden" / "letter"
    told, prepared = json.loads((golden / "t5_data.json").read_text(encoding="utf-8")), read(golden)
    tokenizer = load_tokenizer(save_golden_t5(tmp_path))
    codes = Codes(Source(prepared.item_ids, prepared.titles, prepared.texts, tokenizer, tmp_path))
    prompts = Prompts(filled("letter", category="items"), tokenizer, codes, tmp_path)
    rows, id_of = prepared.splits["test"], told["token_to_id"]

    def ids(text: str) -> list[int]:
        return [*(id_of[part + ">"] for part in text.split(">")[:-1]), tokenizer.eos]

    made = prompts.of_items(rows.history)
    assert [made[n].tolist() for n in range(len(rows))] == [ids(pair["input_ids"]) for pair in told["test"]]
    assert [codes.rows()[int(item)].tolist() for item in rows.target] == [ids(pair["labels"]) for pair in told["test"]]
    for no_history in (prompts.of_items(Ragged.from_lists([[]]))[0], prompts.without_history()):
        assert no_history.tolist() == [tokenizer.eos]


def test_the_prompt_of_codes_is_not_for_titles(tokenizer, tmp_path):
    titles = Titles(source_of(tokenizer, tmp_path, None))
    with pytest.raises(InputError, match=r"config\.data\.prompt names a template for codes.*identifiers\.name=codes"):
        Prompts(filled("letter", category="items"), tokenizer, titles, tmp_path)


def test_items_of_one_code_are_one_candidate_and_an_exported_folder_knows_codes(tiny, tmp_path, capsys):
    shared = {3: "<a_0> <b_4>", 4: "<a_0> <b_4>", 22: "<a_4><b_2>"}
    codes = [shared.get(item, f"<a_{item // 5}> <b_{item % 5}>") for item in range(len(TITLES))]
    splits = load(tiny / "data").splits
    found = assemble(item_ids=ITEM_IDS, titles=TITLES, texts={"code": codes}, splits=splits, dropped={}, notes={})
    save(found, tmp_path / "data")
    (tmp_path / "model").symlink_to(tiny / "model")
    config, workdir = tiny_config(tmp_path, {"identifiers.name": "codes", "decode.num_beams": 22}), tmp_path / "run"
    evaluate(config, Workdir(str(workdir)), name="test")
    assert "23 of 23 items, 22 codes (1 items merged into one that they share)" in capsys.readouterr().out
    lines, _ = read_written(workdir, "test")
    assert all([ITEM_IDS[3], ITEM_IDS[4]] in [result["items"] for result in line["ranked"]] for line in lines)
    assert {ITEM_IDS[3], ITEM_IDS[4]} <= {item for line in lines for item in line["target"]["items"]}
    config.decode.num_beams = 4
    export(config, Workdir(str(workdir)), str(tmp_path / "out"))
    history = [ITEM_IDS[7], ITEM_IDS[8]]
    ours = recommend(config, Workdir(str(workdir)), history, k=4).results
    assert Recommender.load(tmp_path / "out").recommend(history).results == ours
