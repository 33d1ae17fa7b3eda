import dataclasses

import pytest

from igd_jax.core.errors import InputError
from igd_jax.models.config import NAMED, ModelConfig


def test_configs_are_hashable_and_cannot_be_changed():
    assert len({*NAMED.values()}) == len(NAMED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        NAMED["nano"].vocab_size = 1  # type: ignore[misc]


def test_odd_head_width_is_refused():
    with pytest.raises(InputError, match="head width 7"):
        ModelConfig(**(dataclasses.asdict(NAMED["nano"]) | {"head_dim": 7}))
