"""Every experiment file resolves, holds only known fields, and can be read back from JSON."""

import importlib
import inspect
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import common, igd
from igd_jax.data.prompts import render
from igd_jax.methods.base import load_method
from igd_jax.models.config import named
from igd_jax.session.config_flags import config_json

FILES = sorted(path.stem for path in Path(common.__file__).parent.glob("[!_]*.py"))
ARGUMENTS = {"bigrec": ("bigrec", "cft"), "igd": tuple(igd.PUBLISHED), "msl": ("fixed", "adaptive"), "setrec": ("t5",)}
CASES = [(name, ()) for name in FILES] + [(name, (given,)) for name in ARGUMENTS for given in ARGUMENTS[name]]


def _fields(config: ConfigDict) -> set[tuple[str, str]]:
    """Every field but the arguments of the method, which are the method's own."""
    return {(section, field) for section in config for field in config[section]}


def _get(name: str, arguments: tuple[str, ...]) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(*arguments)


def test_every_config_with_an_argument_is_tested_with_all_that_it_may_be():
    takes_one = {
        name for name in FILES if inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    }
    assert takes_one == ARGUMENTS.keys()
    for name, arguments in ARGUMENTS.items():
        with pytest.raises(ValueError, match=rf"configs/{name}.py:another is unknown; expected ") as caught:
            _get(name, ("another",))
        assert all(given in str(caught.value) for given in arguments)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_has_exactly_the_known_fields(name, arguments):
    assert _fields(_get(name, arguments)) == _fields(common.get_config())


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_names_things_that_exist(name, arguments):
    config = _get(name, arguments)
    load_method(config.method.name, config.method.args.to_dict())
    named(config.model.config, vocab_size=config.tokenizer.vocab_size)
    render(config.data.prompt, ["A"], category=config.data.category)
    assert config.train.global_batch_size % config.train.micro_batch_size == 0
    assert max(config.eval.ks) <= config.decode.num_beams


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_comes_back_from_json(name, arguments):
    config = _get(name, arguments)
    again = ConfigDict(config_json(config))
    assert config_json(again) == config_json(config)
    assert _fields(again) == _fields(config)


@pytest.mark.parametrize("category", igd.PUBLISHED)
def test_a_published_recipe_sets_prompt_noun_beta_and_candidates_together(category):
    config = igd.get_config(category)
    assert (config.data.prompt, config.decode.candidates, config.decode.max_new_tokens) == ("igd", "train", 72)
    assert (config.data.category, config.method.args.beta) == igd.PUBLISHED[category]
    assert (config.train.global_batch_size, config.train.micro_batch_size, config.train.learning_rate) == (
        128,
        16,
        1e-4,
    )


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"igd.py:book is unknown; expected one of books, games, toys, cds"):
        igd.get_config("book")
