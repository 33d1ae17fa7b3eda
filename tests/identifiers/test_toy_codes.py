"""Another kind of identifier is one class: three codes per item, of further vocabulary, for any backbone and method."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_run import ITEM_IDS, tiny_config

from igd_jax.core.io import Workdir
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.identifiers import base
from igd_jax.recommend import recommend
from igd_jax.train import train

BASE = 4


class Toy:
    """Item 27 is the codes 1, 2 and 3 of three levels: its digits to the base 4."""

    texts = None

    def __init__(self, source: base.Source):
        first = source.tokenizer.vocab_size
        digits = [(item // BASE**2, item // BASE % BASE, item % BASE) for item in range(len(source.item_ids))]
        self.codes = [[first + BASE * level + digit for level, digit in enumerate(each)] for each in digits]
        self.eos, self.vocab_size = source.tokenizer.eos, first + 3 * BASE
        self.names = {first + number: f"<{'abc'[number // BASE]}{number % BASE}>" for number in range(3 * BASE)}

    def rows(self) -> Ragged:
        return Ragged.from_lists([[*codes, self.eos] for codes in self.codes])

    def mentions(self) -> Ragged:
        return Ragged.from_lists(self.codes)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "is_t5"), [("sft", False), ("igd", False), ("d3", False), ("msl", True)])
def test_codes_are_learnt_and_decoded(tiny: Path, t5_folder: Path, tmp_path: Path, monkeypatch, capsys, is_t5, method):
    monkeypatch.setattr(base, "identifier_names", lambda: ["toy"])  # as the file identifiers/toy.py would
    monkeypatch.setitem(sys.modules, "igd_jax.identifiers.toy", SimpleNamespace(IDENTIFIERS=Toy))
    config, workdir = tiny_config(tiny), Workdir(str(tmp_path / "run"))
    config.method = {"name": method, "args": {}}
    config.update_from_flattened_dict({"identifiers.name": "toy", "train.num_steps": 20})
    config.model.path = str(t5_folder if is_t5 else tiny / "model")
    config.decode.collaborative = "popularity" if method == "d3" else ""
    assert train(config, workdir)["best_step"] > 6  # the loss of valid falls
    assert re.search(r"example target \(token:weight\): '<a\d>':\S+ '<b\d>':\S+ '<c\d>':\S+", capsys.readouterr().out)
    assert evaluate(config, workdir, name="test")["invalid"] == 0
    lines = (workdir.eval("test") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    lists = [[(one["items"], one["tokens"]) for one in json.loads(line)["ranked"]] for line in lines]
    if method == "sft":
        answer = recommend(config, workdir, [ITEM_IDS[4], "a title that no code spells"], k=4)
        lists.append([(list(one.items), list(one.tokens)) for one in answer.results])
    toy = Toy(base.Source(ITEM_IDS, [], {}, load_tokenizer(tiny / "model"), tmp_path))
    for (item,), tokens in (result for ranked in lists for result in ranked):
        assert tokens == [*toy.codes[ITEM_IDS.index(item)], toy.eos]
    assert all(len(ranked) == len({item for (item,), _ in ranked}) == 4 for ranked in lists)
