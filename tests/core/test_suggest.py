"""An unknown name gets a question after what was meant, or nothing."""

import pytest

from igd_jax.core.suggest import did_you_mean

NAMES = ["The Iron Tide: A Novel", "The Iron Tile", "Gone Girl", "Night Train to Lisbon", "x" * 300]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("gone girl!", "; did you mean 'Gone Girl'?"),
        ("Night train to Lissabon", "; did you mean 'Night Train to Lisbon'?"),
        ("the iron ti", "; did you mean 'The Iron Tile' or 'The Iron Tide: A Novel'?"),
        ("x" * 299, f"; did you mean '{'x' * 38}...{'x' * 38}'?"),
        ("the iron tidd", "; did you mean 'The Iron Tide: A Novel' or 'The Iron Tile'?"),
        ("gon", ""),
        ("Moby Dick", ""),
        ("???", ""),
        ("", ""),
    ],
)
def test_what_begins_alike_or_is_spelt_alike_is_suggested(given, told):
    assert did_you_mean(given, NAMES) == told
    assert did_you_mean(given, dict.fromkeys(NAMES, 3)) == told
    assert did_you_mean(given, []) == ""


@pytest.mark.parametrize(("given", "told"), [("idg", "igd"), ("sfd", "sft"), ("d4", ""), ("cfd", "")])
def test_a_slip_in_a_short_name(given, told):
    assert did_you_mean(given, ["igd", "sft", "d3"]) == (f"; did you mean '{told}'?" if told else "")
