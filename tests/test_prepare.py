"""The prepare program end to end: what it prints, what it writes, and how it ends on bad input."""

import gzip
import json
import os
from functools import partial

import pytest
from command import one_line, run_here

from igd_jax import prepare
from igd_jax.core.errors import InputError
from igd_jax.data.prepared import load


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the program in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return partial(run_here, prepare)


def test_csv_becomes_a_prepared_folder_and_all_is_told(tmp_path, run):
    lines = [f"u{i % 4},i{i % 7},2018-01-{i + 1:02},Title {i % 7 // 2}" for i in range(28)]
    (tmp_path / "my.csv").write_text("\n".join(["user,item,timestamp,title", *lines]))
    done = run("--source=csv", "--input=my.csv", "--output=out", "--max_history=3")
    assert (done.code, done.err) == (0, "")
    prepared = load(tmp_path / "out")
    columns, *told, wrote, following = done.out.splitlines()
    assert columns == "columns: user, item, timestamp, title"
    assert told[0] == (
        "data: users 4, items 7, rows train 19, valid 2, test 3, dates 2018-01-05 to 2018-01-28,"
        f" fingerprint {prepared.meta['fingerprint']}"
    )
    assert [line.split()[-5:] for line in told[1:]] == [
        ["user,", "so", "without", "history:", "events"],
        ["to", "the", "last", "3:", "rows"],
        ["written:", "3,", "of", "6", "items"],
        ["these", "apart;", "drop", "such", "items"],
    ]
    assert wrote == "wrote out"
    assert following.startswith("next: python -m igd_jax.train --config=")
    assert "--config.data.dir=out" in following
    meta = json.loads((tmp_path / "out/meta.json").read_text(encoding="utf-8"))
    assert meta["source"] == "csv"
    assert meta["options"] == {
        "input": "my.csv",
        "columns": "",
        "delimiter": ",",
        "min_rating": None,
        "duplicates": "drop",
        "k_core": 0,
        "split": "time",
        "min_history": 1,
        "max_history": 3,
        "max_eval_history": None,
    }
    assert max(len(prepared.splits["test"].history[r]) for r in range(3)) == 3


def test_histories_may_begin_empty_and_those_of_test_be_longer(tmp_path, run):
    (tmp_path / "my.csv").write_text("\n".join(["user,item,timestamp,title", *(f"u,i{i},{i},T{i}" for i in range(31))]))
    given = ["--min_history=0", "--max_history=5", "--max_eval_history=20"]
    assert run("--source=csv", "--input=my.csv", "--output=out", *given).code == 0
    splits = load(tmp_path / "out").splits
    assert (splits["train"].history.lengths.min(), splits["train"].history.lengths.max()) == (0, 5)
    assert splits["test"].history.lengths.max() == 20


def test_equal_times_and_titles_are_told(tmp_path, run):
    lines = [f"u{i % 4},i{i % 12},2023-11-14,Same" for i in range(28)]
    (tmp_path / "my.csv").write_text("\n".join(["user,item,timestamp,title", *lines]))
    told = run("--source=csv", "--input=my.csv", "--output=out").out
    assert "all rows have one time, 2023-11-14T00:00:00Z, so that their order and the split are those of the in" in told
    assert "titles shared by several items, which are one candidate where titles are written: 1, of 12 items\n" in told
    for split in ("6 of 6 train", "1 of 1 test"):
        alike = "targets have one title, 'Same', of 12 items: lists cannot tell these apart; drop such items"
        assert f"\nNOTE: {split} {alike}\n" in told


@pytest.mark.parametrize(("n_same", "is_told"), [(5, False), (6, True)])
def test_a_title_of_more_than_half_of_the_targets_is_told(tmp_path, run, n_same, is_told):
    """100 rows, each of a user's own; of the 10 in test some have the item of one title."""
    titles = [f"Title {row}" for row in range(100 - n_same)] + ["<span class='a-size'>"] * n_same
    events = [f"u{row},i{'same' if row >= 100 - n_same else row},{row},{title}" for row, title in enumerate(titles)]
    first = [f"u{row},first,-5,First" for row in range(100)]
    (tmp_path / "my.csv").write_text("\n".join(["user,item,timestamp,title", *first, *events]))
    told = run("--source=csv", "--input=my.csv", "--output=out").out
    alike = (
        """NOTE: 6 of 10 test targets have one title, "<span class='a-size'>", of one item: a list that holds it is"""
    )
    assert (alike in told) == ("NOTE" in told) == is_told


def test_a_dataset_becomes_a_prepared_folder_and_its_columns_are_told(tmp_path, run):
    lines = [
        f'{{"who": {i % 4}, "item": "i{i % 7}", "timestamp": "2018-01-{i + 1:02}", "title": "T"}}' for i in range(28)
    ]
    (tmp_path / "my.jsonl").write_text("\n".join(lines))
    done = run("--source=huggingface", "--input=my.jsonl", "--columns=user=who", "--output=out")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:2] == [
        "my.jsonl: json, 1 file, split train",
        "columns: who as user, item, timestamp, title",
    ]
    prepared = load(tmp_path / "out")
    assert prepared.meta["rows"] == {"train": 19, "valid": 2, "test": 3}
    assert prepared.meta["options"] == {
        "input": "my.jsonl",
        "columns": "user=who",
        "min_rating": None,
        "duplicates": "drop",
        "hf_subset": None,
        "hf_split": None,
        "k_core": 0,
        "split": "time",
        "min_history": 1,
        "max_history": 10,
        "max_eval_history": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=csv", "--input=bad.csv", "--output=out"], "bad.csv line 2: cannot read timestamp 'soon'"),
        (["--source=synthetic", "--output=mine"], "mine holds 'thesis.tex', which this program did not write"),
        (["--source=synthetic", "--output=out", "--split=random"], "--split=random"),
        (["--source=synthetic", f"--output={'x' * 300}"], "cannot be written (File name too long)"),
        (["--source=synthetic", f"--output={'x' * 250}"], "File name too long"),
        (["--source=synthetic", "--output=out", "--outptu=x"], "--outptu is not an option of this command"),
        (["--source=csv"], "--output is missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two_and_writes_nothing(tmp_path, run, arguments, message):
    (tmp_path / "bad.csv").write_text("user,item,timestamp,title\nu,i,soon,A\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    done = run(*arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert {path.name for path in tmp_path.rglob("*")} == {"bad.csv", "mine", "thesis.tex"}


def test_without_a_network_a_dataset_of_the_hub_is_trouble_of_the_machine(run):
    done = run("--source=huggingface", "--input=owner/name", "--output=out")  # tests are offline, see conftest.py
    assert done.code == 74
    (line,) = done.err.splitlines()
    assert line.startswith("error: cannot read owner/name as a dataset (ConnectionError: ")
    assert line.endswith("; check the network and the login, and start the same command again")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("netflix", {}, "no source 'netflix'; choose one of amazon2014, amazon2018, "),
        ("../prepare", {}, "no source '../prepare'"),
        ("movielense", {}, "; did you mean 'movielens'?"),
        ("csv", {}, "--source=csv needs --input"),
        (
            "csv",
            {"min_items": 3},
            "takes no --min_items; it takes --columns, --delimiter, --min_rating, --dup",
        ),
        ("movielens", {"columns": "user=a"}, "takes no --columns; it takes --min_rating, --duplicates, --k_core,"),
        ("d3", {"k_core": 5}, "takes no --k_core; it takes no options"),
        ("setrec", {"max_history": 5}, "takes no --max_history; it takes no options"),
    ],
)
def test_what_a_source_does_not_take_is_an_input_error(source, options, message):
    with pytest.raises(InputError) as caught:
        prepare.prepare(source, path=None, options=options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "--input=/dev/zero is neither a file nor a folder"),
        ("pipe", "--input=pipe is neither a file nor a folder"),
        ("loop", "--input is 'loop', a link that leads to itself; name another path"),
        ("x" * 300, " cannot be read (File name too long)"),
        ("x/" * 3000, " cannot be read (File name too long)"),
        ("a/" * 100, " does not exist"),
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("source", ["csv", "huggingface"])
def test_an_input_that_is_no_file_or_folder_is_refused(tmp_path, run, source, name, message):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    done = run(f"--source={source}", f"--input={name}", "--output=out")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert len(line) < 500


def test_a_file_of_a_folder_must_be_a_regular_file(tmp_path, run):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    (tmp_path / "u.item").symlink_to("/dev/zero")
    done = run("--source=movielens", "--input=.", "--output=out")
    assert (done.code, done.err) == (2, "error: u.item is not a regular file; expected a file\n")


def test_all_that_a_csv_can_be_told(tmp_path, run):
    rows = [f"u{i % 4};i{i % 7};2018-01-{i + 1:02};Title {i % 7};{i % 2 * 5}" for i in range(28) for _ in range(2)]
    (tmp_path / "my.csv.gz").write_bytes(gzip.compress("\n".join(["who;item;when;title;stars", *rows]).encode()))
    named = "--columns=user=who,timestamp=when,rating=stars"
    done = run("--source=csv", "--input=my.csv.gz", "--delimiter=;", named, "--min_rating=5", "--output=out")
    assert (done.code, done.err) == (0, "")
    assert "columns: who as user, item, when as timestamp, title, stars as rating\n" in done.out
    assert load(tmp_path / "out").meta["dropped"] == {
        "rating below 5: events": 28,
        "rating below 5: users": 2,
        "repeat of an event (same user, item and time): events": 14,
        "first of its user, so without history: events": 2,
    }
    assert run("--source=csv", "--input=my.csv.gz", "--delimiter=|", "--output=out").code == 2


def test_missing_input_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="none does not exist"):
        prepare.prepare("csv", path=tmp_path / "none", options={})


def test_options_reach_the_source_and_the_split():
    options = {"n_items": 30, "n_users": 20, "n_events": 400, "seed": 3, "split": "leave_one_out", "k_core": 2}
    meta = prepare.prepare("synthetic", path=None, options=options).meta
    assert meta["options"] == {
        "input": None,
        "min_history": 1,
        "max_history": 10,
        "max_eval_history": None,
        **options,
    }
    assert meta["rows"]["test"] == meta["users"] == 20


def test_amazon_defaults_to_a_core_of_five(shared):
    meta = prepare.prepare("amazon2018", path=shared / "data/amazon_raw", options={}).meta
    assert meta["options"]["k_core"] == 5
    assert meta["options"]["min_items"] == 10_000
    assert meta["rows"] == {"train": 2003, "valid": 250, "test": 251}


def test_same_command_gives_the_same_data(shared):
    first, second = (prepare.prepare("amazon2018", path=shared / "data/amazon_raw", options={}).meta for _ in range(2))
    assert first == second


def test_the_next_command_can_be_copied_whatever_the_name_of_the_folder(run):
    done = run("--source=synthetic", "--n_users=100", "--n_items=50", "--n_events=1000", "--output=my out")
    assert "--config.data.dir='my out' --workdir=RUN" in done.out.splitlines()[-1]


@pytest.mark.parametrize(
    "option",
    [
        "--n_events=9223372036854775808",
        "--n_users=1000000001",
        "--n_items=0",
        "--max_history=99999999999999999999",
    ],
)
def test_a_size_that_no_shop_has(option, run, tmp_path):
    done = run("--source=synthetic", "--output=out", option)
    assert done.code == 2
    assert option.split("=")[0].lstrip("-") in one_line(done)
    assert not (tmp_path / "out").exists()


OWN_SOURCE = """
from __future__ import annotations

from pathlib import Path

from igd_jax.data.interactions import to_prepared
from igd_jax.data.prepared import Prepared
from igd_jax.data.sources import synthetic


def read(path: Path | None = None, *, n_plays: int = 1) -> Prepared:
    print(f"at least {n_plays} plays")
    return to_prepared(synthetic.read(n_users=20, n_items=10, n_events=200), max_history=2)
"""


def test_an_option_of_ones_own_takes_a_flag_and_published_splits_may_have_late_annotations(tmp_path, run, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "plays.py").write_text(OWN_SOURCE)
    monkeypatch.setattr(prepare.sources, "__path__", [*prepare.sources.__path__, str(tmp_path / "mine")])
    define = prepare.define_flags

    def with_another() -> None:
        define()
        exec('flags.DEFINE_integer("n_plays", None, "plays: fewest")', vars(prepare))  # as if in `define_flags`

    monkeypatch.setattr(prepare, "define_flags", with_another)
    done = run("--source=plays", "--output=out", "--n_plays=7")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("at least 7 plays\n")
    assert load(tmp_path / "out").meta["options"] == {"input": None, "n_plays": 7}
    line = one_line(run("--source=synthetic", "--output=out", "--n_plays=7"))
    assert "--source=synthetic takes no --n_plays; it takes " in line
    assert one_line(run("--source=plays", "--output=out", "--k_core=2")).endswith("it takes --n_plays")
