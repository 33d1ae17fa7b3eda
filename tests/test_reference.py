"""The reference pages name every command, option and field, each with what it means."""

import re

import test_docs
from absl import flags

import igd_jax
from docs import reference
from igd_jax.__main__ import commands


def rows(page: str, heading: str) -> dict[str, tuple[str, str]]:
    """Value and meaning by name, of the tables between a heading and the next."""
    part = re.split(rf"^#+ {re.escape(heading)}$", page, flags=re.MULTILINE)[1]
    lines = re.findall(
        r"^\| `(\S+)` \| `?(.*?)`? \| (.*) \|$", re.split(r"^#", part, flags=re.MULTILINE)[0], re.MULTILINE
    )
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
    assert rows(page, "prepare")["split"][0] == "time"


def test_every_field_and_argument_has_its_line():
    page = reference.config_page()
    named = set(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE))
    expected = {field.removeprefix("method.args.") for field in test_docs.config_fields()} - {
        "method.name",
        "method.args",
    }
    assert named == expected
    fields = rows(page, "decode")
    assert fields["decode.alpha"] == (
        "0.2",
        "discount of high-gain tokens, 0 to 1; 0 = plain beam search; authors: about 0.2",
    )
    assert all(meaning for section in ("data", "model", "train", "eval") for _, meaning in rows(page, section).values())
    assert rows(page, "msl:adaptive")["eta"][0] == "0.25"


def test_every_exported_name_has_its_block():
    modules = re.findall(r"^::: igd_jax\.(\S+)$", reference.python_page(), re.MULTILINE)
    assert sorted(module.rpartition(".")[2] for module in modules) == sorted(igd_jax.__all__)
