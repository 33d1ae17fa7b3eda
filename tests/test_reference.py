"""Pages made from the code name every command, option and field; figures are those of results."""

import importlib
import re

import pytest
import test_docs
from absl import flags

import igd_jax
from docs import pictures, reference
from igd_jax.__main__ import commands


def rows(page: str, heading: str) -> dict[str, tuple[str, str]]:
    """Value and meaning by name, of the tables between a heading and the next."""
    part = re.split(rf"^#+ {re.escape(heading)}$", page, flags=re.MULTILINE)[1]
    part = re.split(r"^#", part, flags=re.MULTILINE)[0]
    lines = re.findall(r"^\| `(\S+)` \| `?(.*?)`? \| (.*) \|$", part, re.MULTILINE)
    return {name: (value, meaning) for name, value, meaning in lines}


def test_every_command_and_option_has_its_line():
    page, before = reference.commands_page(), set(flags.FLAGS)
    assert reference.commands_page() == page
    assert set(flags.FLAGS) == before
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == sorted(commands())
    for name in commands():
        options = rows(page, name)
        own = (test_docs.ROOT / "igd_jax" / f"{name}.py").read_text(encoding="utf-8")
        assert options.keys() >= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', own)), name
        assert all(meaning for _, meaning in options.values()), name
    assert rows(page, "train").keys() >= {"config", "workdir", "restart", "coordinator_address"}
    assert rows(page, "train")["workdir"][0] == "required"


def test_every_field_and_argument_has_its_line():
    page = reference.config_page()
    named = set(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE))
    fields = test_docs.config_fields() - {"method.name", "method.args"}
    assert named == {field.removeprefix("method.args.") for field in fields}
    value, meaning = rows(page, "decode")["decode.alpha"]
    assert (value, meaning[:31]) == ("0.2", "favours high-gain tokens, 0 to ")
    assert all(meaning for section in ("data", "model", "train", "eval") for _, meaning in rows(page, section).values())
    assert rows(page, "msl:adaptive")["eta"][0] == "0.25"


def test_every_exported_name_has_its_block():
    blocks = re.findall(r"^::: (\S+)$", reference.python_page(), re.MULTILINE)
    assert [block.rpartition(".")[2] for block in blocks] == sorted(igd_jax.__all__)
    for module, _, name in (block.rpartition(".") for block in blocks):
        assert vars(importlib.import_module(module))[name] is getattr(igd_jax, name)


def test_figures_are_those_of_the_results():
    page = (test_docs.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page.count(".json:") == page.count("<!---->") > 40
    assert "\n<!--" not in page  # which would begin a block of its own
    for path in (test_docs.ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert text == reference.with_figures(text), f"{path}: run python -m docs.reference"
    users, model = "<!--setrec.json:users-->9<!---->", "<!--setrec.json:model--><!---->"
    expected = "<!--setrec.json:users-->256<!---->, <!--setrec.json:model-->tiny-qwen2-books<!---->"
    assert reference.with_figures(f"{users}, {model}") == expected
    with pytest.raises(KeyError, match="speed"):
        reference.with_figures("<!--trie.json:speed-->1<!---->")


def test_pictures_are_those_that_are_drawn():
    drawn = dict(pictures.pictures())
    assert sorted(path.name for path in pictures.IMAGES.iterdir()) == sorted(drawn)
    for name, content in drawn.items():
        assert (pictures.IMAGES / name).read_text(encoding="utf-8") == content
    gains = pictures.prefixes()
    assert gains["Night", "Train"] == (0.0, True)
    assert not gains["Night",][1]
    assert "gain 0.96, w 1" in drawn["trie.svg"]
    assert "-0.88" in drawn["alpha.svg"]
