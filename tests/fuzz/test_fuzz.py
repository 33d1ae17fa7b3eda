"""Damaged input of every kind ends well; the whole is ``python -m tests.fuzz --cases=10000``."""

import pytest

from tests.fuzz import __main__ as program


def check(capsys, n_cases: int) -> None:
    code = program.main([f"--cases={n_cases}", "--workers=1"])
    assert code == 0, capsys.readouterr().out


def test_a_few_cases(capsys):
    check(capsys, 40)


@pytest.mark.slow
def test_300_cases(capsys):
    check(capsys, 300)
