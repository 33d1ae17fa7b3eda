"""Csv files of a dataset are read as by the csv source: what that refuses is refused, and nothing is shifted."""

import bz2
import gzip
import lzma

import pytest
from source_files import HEADER, LONG, events_of, write

from igd_jax.core.errors import InputError
from igd_jax.data.sources import csv, huggingface

pytestmark = pytest.mark.usefixtures("files_are_closed")

ROWS = "u,i,1,A\nv,j,2,B\n"
EVENTS = [("u", "i", 1), ("v", "j", 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + 'u,i,1,"Heroes (Live)\n' + ROWS + 'v,i,3,"Heroes (Live)\n',
            "line 2: ',' expected after '\"' on line 5; write a quote within quotes twice, and quote the whole cell",
        ),
        (HEADER + ROWS + 'u,i,3,"Heroes (Live)\n' + ROWS, "line 4: unexpected end of data on line 6; write a quote"),
        (HEADER + 'u,i,1,"Heroes" (Live)\n', "line 2: ',' expected after '\"'; write a quote"),
        (HEADER + "row0,u,i,1,A\nrow1,u,j,2,B\n", "line 2: 5 cells where the header has 4; a cell that holds ','"),
        (HEADER + "u,i,1,A,\nv,j,2,B,\n", "line 2: 5 cells where the header has 4"),
        (HEADER + ROWS + "u,i,3\n", "line 4: 3 cells where the header has 4; write every cell, even if blank"),
    ],
)
def test_what_the_csv_source_refuses_is_refused(tmp_path, text, message):
    path = write(tmp_path / "my.csv", text)
    for read in (csv.read, huggingface.read):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path} {message}")


@pytest.mark.parametrize(
    "row", ['u,i,3,A 12" single\n', 'u,i,3,"A ""12"", long"\n', f"u,i,3,{2 * LONG}\n", "\n\nu,i,3,\n"]
)
def test_what_the_csv_source_reads_is_read_alike(tmp_path, row):
    path = write(tmp_path / "my.csv", HEADER + ROWS.replace("A", "") + row)
    ours, theirs = csv.read(path), huggingface.read(path)
    assert events_of(theirs) == events_of(ours) == [*EVENTS, ("u", "i", 3)]
    assert theirs.titles == ours.titles


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("my.csv.gz", lambda text: gzip.compress(text.encode())),
        ("my.csv.bz2", lambda text: bz2.compress(text.encode())),
        ("my.csv.xz", lambda text: lzma.compress(text.encode())),
        ("my.csv", lambda text: text.encode("utf-16")),
        ("my.csv", lambda text: "\ufeff" + text),
        ("my.csv", lambda text: text.replace("\n", "\r\n")),
        ("my.csv", lambda text: text.replace("title\n", "title,x,x\n").replace("A\n", "A,,\n").replace("B\n", "B,,\n")),
    ],
)
def test_files_of_other_programs_are_read_alike(tmp_path, name, change):
    assert events_of(huggingface.read(write(tmp_path / name, change(HEADER + ROWS)))) == EVENTS


@pytest.mark.parametrize(("name", "pack"), [("my.csv.gz", gzip.compress), ("my.csv.bz2", bz2.compress)])
def test_packed_files_that_are_no_text_are_named(tmp_path, name, pack):
    with pytest.raises(InputError, match=rf"{name} is not UTF-8 text \(invalid start byte\)"):
        huggingface.read(write(tmp_path / name, pack(HEADER.encode() + b"u,i,1,\xff\n")))


def card(folder, settings):
    lines = ["---", "configs:", "- config_name: default", '  data_files: "*.csv"', *settings, "---"]
    write(folder / "README.md", "\n".join(lines))
    return folder


def test_settings_of_a_card_are_kept_to(tmp_path):
    text = (HEADER + "u,i,1,'É, A'\nv,j,2,B\n").replace(",", ";")
    write(tmp_path / "my.csv", text.encode("latin-1"))
    log = huggingface.read(card(tmp_path, ['  sep: ";"', "  encoding: latin-1", '  quotechar: "\'"']))
    assert (events_of(log), log.titles) == (EVENTS, ["É; A", "B"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [(["  header: null", "  names: [user, item, timestamp, title]"], "names, header"), (["  skiprows: 1"], "skiprows")],
)
def test_settings_of_a_card_that_are_not_understood_are_refused(tmp_path, settings, named):
    write(tmp_path / "my.csv", HEADER + ROWS)
    with pytest.raises(InputError, match=f"its card sets {named} for csv files, which is not understood; give files"):
        huggingface.read(card(tmp_path, settings))
