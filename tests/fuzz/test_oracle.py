"""The oracle sees each thing that may not happen."""

import os

import pytest

from tests.command import Done
from tests.fuzz import oracle

REFUSED = "error: no such file; name another\n"


@pytest.mark.parametrize(
    ("done", "n_faults"),
    [
        (Done(0, "a line\n", ""), 0),
        (Done(2, "", REFUSED), 0),
        (Done(70, "", REFUSED), 1),
        (Done(2, "", ""), 1),
        (Done(2, "", "note\n" + REFUSED), 1),
        (Done(2, "", "Traceback\n"), 1),
        (Done(2, "", "error: " + "a" * 500 + "\n"), 1),
        (Done(2, "", "error: \x1b[31m\n"), 1),
        (Done(0, "\x1b[31m\n", ""), 1),
        (Done(0, "\udcff\n", ""), 1),
    ],
)
def test_messages(done, n_faults):
    assert len(oracle.of_the_message(done)) == n_faults


@pytest.mark.parametrize(
    ("change", "of_success", "of_refusal"),
    [
        (lambda folder: None, [], []),
        (lambda folder: (folder / "out" / "a").write_text("2"), [], ["out/a is changed"]),
        (lambda folder: (folder / "out" / "a").unlink(), [], ["out/a is gone"]),
        (lambda folder: (folder / "data").write_text("2"), ["data is changed"], ["data is changed"]),
        (lambda folder: (folder / "new").touch(), ["new is left behind"], ["new is left behind"]),
        (lambda folder: (folder / "out" / "b").touch(), [], ["out/b is left behind"]),
        (lambda folder: (folder / "out" / ".b.lock").touch(), *[["out/.b.lock is left behind"]] * 2),
        (lambda folder: os.replace(folder / "out" / "a", folder / "data"), *[["data is changed"]], None),
    ],
)
def test_files(tmp_path, change, of_success, of_refusal):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("1")
    (tmp_path / "data").write_text("1234")
    before = oracle.seen(tmp_path)
    change(tmp_path)
    after = oracle.seen(tmp_path)
    for is_success, expected in ((True, of_success), (False, of_refusal)):
        if expected is not None:
            found = oracle.of_the_files(before, after, is_success=is_success, writes=["out"], anywhere=False)
            assert found == expected


def test_results():
    assert oracle.of_the_result({"a": "1"}, {"a": "1"}, "") == []
    assert oracle.of_the_result({"a": "1"}, {"a": "2"}, "") == ["a silent change of a"]
    assert oracle.of_the_result({"a": "1"}, {"a": "2"}, "checkpoint of step 4 passed over: it is damaged") == []
