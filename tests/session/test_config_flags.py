"""What --help of a command says of its config."""

import pytest
from command import run_process


@pytest.mark.parametrize(("program", "given"), [("train", ["--config=configs/igd.py"]), ("evaluate", None)])
def test_help_shows_the_config_and_where_its_fields_are_listed_on_one_screen(program, given, trained):
    lines = run_process(program, *(given or [f"--workdir={trained}"]), "--help").out.splitlines()
    own = lines[lines.index("flags:") :]
    assert any(line.startswith("  --config: Experiment file, such as configs/igd.py") for line in own)
    assert any("configs/common.py lists them all" in line for line in own)
    assert any(line.startswith("  --workdir:") for line in own)
    assert len(lines) <= 40
