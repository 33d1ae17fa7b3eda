"""How long prompts that are ranked for may be."""

import shutil

import pytest
import tiny_run

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.session.limits import LONGEST, room_of_prompts
from igd_jax.session.session import set_up_to_decode


@pytest.fixture
def room(tiny, tmp_path):
    """Function from changes of the config, and the positions of the model, to the room of prompts."""
    shutil.copytree(tiny / "data", tmp_path / "data")
    shutil.copytree(tiny / "model", tmp_path / "model")

    def room_with(changes, *, positions=512):
        tiny_run.set_positions(tmp_path / "model", positions)
        session = set_up_to_decode(tiny_run.tiny_config(tmp_path, changes), Workdir(str(tmp_path / "none")))
        assert (session.index.longest, session.prompts.n_words) == (9, 33)
        return room_of_prompts(session, session.index)

    return room_with


def test_a_prompt_may_have_what_the_longest_answer_leaves_of_the_positions_whatever_training_read(room, tmp_path):
    assert [room({"data.max_length": limit}) for limit in (47, 512)] == [512 - 9] * 2
    assert room({"decode.max_new_tokens": 5}) == 512 - 5
    assert room({}, positions=520) == 520 - 9
    assert room({"data.max_length": 42}, positions=42) == 33
    relative = {"model.path": "", "model.config": "t5-pico", "tokenizer.path": str(tmp_path / "model")}
    assert room(relative) == LONGEST


def test_no_room_for_the_words_of_a_prompt_is_bad_input(room):
    told = r"has 33 tokens and the longest answer 9, but .* made for 41 positions; set .*max_new_tokens to at most 8,"
    with pytest.raises(InputError, match=told):
        room({"data.max_length": 41}, positions=41)
    with pytest.raises(InputError, match=r"made for 33 positions; use another model"):
        room({"data.max_length": 33}, positions=33)
