"""Every experiment file resolves, holds only known fields, and can be read back from JSON."""

import importlib
import inspect
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import bigrec, common, d3, igd, msl
from igd_jax.data.templates import NOUNS
from igd_jax.settings.config_flags import config_json

FILES = sorted(path.stem for path in Path(common.__file__).parent.glob("[!_]*.py"))
ARGUMENTS = {
    "bigrec": (*bigrec.GROUNDINGS, *common.BIGREC_NOUNS),
    "d3": tuple(common.D3_NOUNS),
    "igd": tuple(common.D3_NOUNS),
    "msl": ("fixed", "adaptive"),
    "setrec": ("t5",),
}
CASES = [(name, ()) for name in FILES] + [(name, (given,)) for name in ARGUMENTS for given in ARGUMENTS[name]]


def _fields(config: ConfigDict) -> set[tuple[str, str]]:
    """Every field but the arguments of the method, which are the method's own."""
    return {(section, field) for section in config for field in config[section]}


def get_case(name: str, arguments: tuple[str, ...]) -> ConfigDict:
    """The config of one of `CASES`."""
    return importlib.import_module(f"configs.{name}").get_config(*arguments)


def test_no_name_is_that_of_a_function_of_every_config():
    """`config.items` would be one, and flags could not reach the fields of such a section."""
    assert [name for pair in _fields(common.get_config()) for name in pair if hasattr(ConfigDict, name)] == []


def test_every_config_with_an_argument_is_tested_with_all_that_it_may_be():
    takes_one = {
        name for name in FILES if inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    }
    assert takes_one == ARGUMENTS.keys()
    for name, arguments in ARGUMENTS.items():
        with pytest.raises(ValueError, match=rf"configs/{name}.py:another is unknown; expected ") as caught:
            get_case(name, ("another",))
        assert all(given in str(caught.value) for given in arguments)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_has_exactly_the_known_fields(name, arguments):
    assert _fields(get_case(name, arguments)) == _fields(common.get_config())


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_comes_back_from_json(name, arguments):
    config = get_case(name, arguments)
    again = ConfigDict(config_json(config))
    assert config_json(again) == config_json(config)
    assert _fields(again) == _fields(config)


@pytest.mark.parametrize("category", common.D3_NOUNS)
def test_a_published_recipe_sets_prompt_noun_beta_candidates_and_divisor_together(category):
    config = igd.get_config(category)
    assert (config.data.prompt, config.data.candidates, config.decode.max_new_tokens) == ("igd", "train", 72)
    assert (config.data.category, config.method.args.beta) == (common.D3_NOUNS[category], igd.BETAS.get(category, 0.1))
    assert config.loss.normalizer == "micro_batch"
    assert (config.train.global_batch_size, config.train.micro_batch_size, config.train.learning_rate) == (
        128,
        16,
        1e-4,
    )


def test_words_of_a_category_set_the_prompt_of_its_authors():
    configs = {
        "d3": d3.get_config("cds"),
        "bigrec": bigrec.get_config("movies"),
        "msl": msl.get_config("adaptive,clothing"),
    }
    assert {name: config.data.prompt for name, config in configs.items()} == {name: name for name in configs}
    assert [config.data.category for config in configs.values()] == ["musics", "movies", "clothing"]
    assert configs["bigrec"].method.args.prompt_loss
    assert configs["msl"].method.args.adaptive
    with pytest.raises(ValueError, match=r"msl.py:fixed,pets is unknown; expected one of books, games"):
        msl.get_config("fixed,pets")


def test_nouns_of_prompts_with_verbs_have_their_verbs():
    assert set(common.BIGREC_NOUNS.values()) == set(NOUNS)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"igd.py:book is unknown; expected one of books, games, toys, cds"):
        igd.get_config("book")
