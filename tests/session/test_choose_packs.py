"""The width of packs, if it is not given, is the one that takes the fewest operations."""

import pytest
import tiny_run
from runs import session_of

from igd_jax.session import packing
from igd_jax.session.packing import choose_packs


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        pytest.param(lambda width: width**2.0, 64, id="attention is all"),
        pytest.param(lambda width: 1 / width, 256, id="the fewest packs"),
        pytest.param(lambda width: {64: 2.0, 128: 1.0, 256: 2.0}[width], 128, id="between"),
    ],
)
def test_the_width_of_packs_is_the_cheapest(cost, expected, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "WIDTHS", (128, 256))
    monkeypatch.setattr(packing, "forward_flops_per_token", lambda config, width: cost(width))
    session = session_of(tiny_run.tiny_config(tiny, {"train.packing": "rows"}), tmp_path)
    objective = session.method.objective(session.context(session.index))
    train, valid = (session.examples(session.rows(split)) for split in ("train", "valid"))
    shape = choose_packs(session, objective, train=train, valid=valid)
    assert shape.width == expected
