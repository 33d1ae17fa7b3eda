"""The source csv: odd titles, names and separators, and every fault told with its file and line."""

import csv as csv_module
import gzip

import pytest
from source_files import HEADER, LONG, events_of, short, write

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import drop_untitled
from igd_jax.data.sources import csv


def test_columns_come_in_any_order_among_others(tmp_path):
    text = "title,rating,timestamp,item,user\nA,5,2018-11-01,i,u\nB,3,1541030401,j,u\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert events_of(log) == [("u", "i", 1541030400), ("u", "j", 1541030401)]
    assert log.titles == ["A", "B"]


def test_titles_stay_text(tmp_path):
    titles = ["None", "NA", "nan", "null", "1e5", "007", 'He said "no", twice', "two\nlines", "Ünïcode 書 🎲", "#", "="]
    path = tmp_path / "my.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv_module.writer(file)
        writer.writerow(["user", "item", "timestamp", "title"])
        writer.writerows([["u", f"00{i}", i, title] for i, title in enumerate(titles)])
    log = csv.read(path)
    assert log.titles == titles
    assert log.item_ids[7] == "007"


def test_a_quote_may_stand_after_a_blank(tmp_path):
    text = 'user, "item", timestamp, title\n"u", "i", 1, "One, two"\n"u",  j , 2,  "Three ""four"" "\n'
    log = csv.read(write(tmp_path / "my.csv", text))
    assert events_of(log) == [("u", "i", 1), ("u", "j", 2)]
    assert log.titles == ["One, two", 'Three "four"']


def test_a_cell_may_be_as_long_as_a_line_and_no_longer(tmp_path, monkeypatch):
    path, lines = tmp_path / "my.csv", "".join(f"u,i,{line},A\n" for line in range(200))
    with monkeypatch.context() as limited:
        limited.setattr("igd_jax.data.source_io._LONGEST_LINE", 1000)
        with pytest.raises(
            InputError, match=r"line 2: field larger than field limit \(1000\) on line \d+; write a quote"
        ):
            csv.read(write(path, HEADER + 'u,i,1,"A\n' + lines))
    log = csv.read(write(path, HEADER + f"u,i,1,{2 * LONG}\n"))
    assert log.titles == [2 * LONG]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text + "\n\n",
        lambda text: text.encode("utf-16"),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text[:30].encode()) + gzip.compress(text[30:].encode()),
        lambda text: gzip.compress(text.encode("utf-16")),
    ],
)
def test_of_other_programs_reads_alike(tmp_path, change):
    text = HEADER + "u, i ,1,A\nv,j,2, B \n"
    log = csv.read(write(tmp_path / "my.csv", change(text)))
    assert (events_of(log), log.titles) == ([("u", "i", 1), ("v", "j", 2)], ["A", "B"])


def test_keeps_an_items_first_title_and_counts_the_items_with_others(tmp_path):
    text = HEADER + "u,i,2,First\nu,i,3,Second\nu,i,4,Third\nu,j,6,Only\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert log.titles == ["First", "Only"]
    assert log.dropped == {"title other than the item's first: items": 1}


def test_an_item_without_a_title_takes_a_later_one_or_goes_with_its_events(tmp_path):
    """As with source huggingface; prepare drops and counts what has none."""
    text = HEADER + "u,i,1,\nv,j,2,  \nu,k,3,K\nu,i,4,First\nv,i,5,\nv,i,6,Second\nv,k,7,\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert log.titles == ["First", "", "K"]
    assert log.dropped == {"title other than the item's first: items": 1}
    assert events_of(drop_untitled(log)) == [event for event in events_of(log) if event[1] != "j"]
    assert drop_untitled(log).dropped["no title: events"] == 1


def test_keeps_an_items_first_words_and_leaves_out_fields_that_no_item_has(tmp_path):
    text = "user,item,timestamp,title,brand,category,description\nu,i,1,A,,x,\nu,j,2,B,,,\nu,i,3,A, Wing ,y,\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert log.texts == {"brand": ["Wing", ""], "category": ["x", ""]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.csv is empty; expected a line with the names of columns, and one per event"),
        ("PAR1...", "my.csv is a parquet file and no text; --source=huggingface reads files named .parquet"),
        ("a,b,c,d\n", "line 1: no column user, item, timestamp, title; name yours with --columns=user=NAME,item=NAME,"),
        ("user,item,timestamp,title\nu,i,1524000000000000,A\n", "if these are microseconds or less, divide them until"),
        (
            "user,item,title\nu,i,A\n",
            "line 1: no column timestamp; name yours with --columns=timestamp=NAME, out of user, item, title",
        ),
        (
            "user\titem\ttimestamp\ttitle\n",
            "line 1: one column, 'user\\titem\\ttimestamp\\ttitle'; is it --delimiter='tab'?",
        ),
        (HEADER, "has a header but no rows"),
        (HEADER + "u,i,1,A\nu,i,1st of May,A\n", "line 3: cannot read timestamp '1st of May'"),
        (HEADER + 'u,i,1,"A\nB"\nu,i,1.5.18,A\n', "line 4: cannot read timestamp '1.5.18'"),
        (HEADER + "u,i,1\n", "line 2: 3 cells where the header has 4"),
        (HEADER + "u,i,1,A, B\n", "line 2: 5 cells where the header has 4; a cell that holds ',' needs quotes"),
        (HEADER + "u,i,1,A\n ,i,2,A\n", "line 3: user is empty"),
        (HEADER + "u,,1,A\n", "line 2: item is empty"),
        (HEADER + "u,i,,A\n", "line 2: timestamp is empty"),
        (
            HEADER + 'u,i,1,"A" B\n',
            "line 2: ',' expected after '\"'; write a quote within quotes twice, and quote the whole cell",
        ),
        (HEADER + 'u,i,0,A\n\nu,i,1,"A\nu,i,2,B\n', "line 4: unexpected end of data on line 5; write a quote within"),
        (HEADER + 'u,i,1,"A (B)\nu,i,2,C\nu,i,1,"A (B)\n', "line 2: ',' expected after '\"' on line 4; write a quote"),
        (HEADER + 'u,i,1,"A\nB",C\n', "line 2: 5 cells where the header has 4"),
        (HEADER + 'u,i,soon,"A\nB"\n', "line 2: cannot read timestamp 'soon'"),
        (HEADER.encode() + b"u,i,1,A\nu,i,1,\xe9\xfe\n", "line 3: not UTF-8 text (byte 0xe9); save it as UTF-8"),
        (HEADER.encode("utf-16-le"), "line 1: a NUL byte"),
        (HEADER.encode("utf-16") + b"\x00\xd8a\x00", "is not utf-16"),
        (HEADER + "u,i,1,A\nu,i,1,A\0B\n", "line 3: a NUL byte"),
        (HEADER + "u,i,-62135596801,A\n", "line 2: cannot read timestamp '-62135596801' (outside the years 1 to 9999)"),
        (HEADER + "u,i,0001-01-01T00:00+01:00,A\n", "(outside the years 1 to 9999)"),
        (HEADER + f"u,i,{LONG},A\n", "line 2: cannot read timestamp 'xxx"),
        (",".join(f"column{n}" for n in range(9999)), "column11 and 9,987 more"),
        ("user,item,timestamp,title,title\n", "line 1: 2 columns are called 'title'; rename all but one"),
        (gzip.compress(HEADER.encode() + b"u,i,1,\xe9\n", mtime=0), "line 2: not UTF-8 text (byte 0xe9)"),
        (gzip.compress(HEADER.encode() * 9, mtime=0)[:-9], "cannot read "),
        (gzip.compress(HEADER.encode() * 9, mtime=0)[:9], "cannot read "),
        (gzip.compress(HEADER.encode() * 9, mtime=0).replace(b"\xb7", b"\x00"), "cannot read "),
    ],
    ids=short,
)
def test_faults_are_told_with_their_line(tmp_path, text, message):
    path = write(tmp_path / "my.csv", text)
    with pytest.raises(InputError) as caught:
        csv.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_must_be_a_file(tmp_path):
    with pytest.raises(InputError, match="is a folder; expected a file"):
        csv.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        csv.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("header", "columns", "told"),
    [
        (
            "userId,movieId,ts,name",
            "user=userId,item=movieId,timestamp=ts,title=name",
            "userId as user, movieId as item",
        ),
        ("user,item,timestamp,my title", "title=my title", "columns: user, item, timestamp, my title as title"),
        ('user,item,timestamp,"a,b"', '"title=a,b"', "columns: user, item, timestamp, a,b as title"),
        ("title,item,timestamp,user", "user=title,title=user", "title as user, item, timestamp, user as title"),
    ],
)
def test_columns_have_the_names_that_are_given(tmp_path, capsys, header, columns, told):
    log = csv.read(write(tmp_path / "my.csv", header + "\nu,i,5,A\n"), columns=columns)
    assert (events_of(log), log.titles) == ([("u", "i", 5)], ["A"])
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    "columns", ["user", "user=", "usr=a", "user=a,user=b", "user=a,,title=b", "user=" + LONG + ",x", "user=a\ntitle=b"]
)
def test_columns_that_are_not_understood(tmp_path, columns):
    with pytest.raises(InputError, match=r"is not understood; expected pairs such as user=userId") as caught:
        csv.read(write(tmp_path / "my.csv", HEADER), columns=columns)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(("delimiter", "sign"), [(";", ";"), ("tab", "\t")])
def test_cells_are_separated_as_asked(tmp_path, delimiter, sign):
    text = (HEADER + "u,i,5,A\n").replace(",", sign)
    log = csv.read(write(tmp_path / "my.csv", text), delimiter=delimiter)
    assert (events_of(log), log.titles) == ([("u", "i", 5)], ["A"])


def test_other_delimiters_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"--delimiter='::': expected one of , ; tab"):
        csv.read(write(tmp_path / "my.csv", HEADER), delimiter="::")


def test_columns_that_are_not_read_are_told(tmp_path, capsys):
    csv.read(write(tmp_path / "my.csv", "price,user,item,rating,timestamp,title,brand\n1,u,i,5,1,A,B\n"))
    told = "columns: user, item, timestamp, title, brand; not read: price, rating"
    assert capsys.readouterr().out.splitlines()[0] == told


def test_events_are_kept_from_a_rating_on(tmp_path):
    rows = [("u", "i", 5), ("u", "j", 3.5), ("v", "j", "4e0"), ("v", "i", " ")]
    text = "user,item,rating,timestamp,title\n" + "".join(f"{user},{item},{stars},1,A\n" for user, item, stars in rows)
    path = write(tmp_path / "my.csv", text)
    log = csv.read(path, min_rating=4.0)
    assert events_of(log) == [("u", "i", 1), ("v", "j", 1)]
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "no rating: events": 1,
        "rating below 4: events": 1,
    }
    assert len(csv.read(path)) == 4
    with pytest.raises(InputError, match=r"--min_rating=6: none of the 4 events has a rating so high"):
        csv.read(path, min_rating=6.0)
    with pytest.raises(InputError, match=r"line 6: rating 'good' is not a number"):
        csv.read(write(path, text + "u,i,good,1,A\n"), min_rating=4.0)
    with pytest.raises(InputError, match=r"no column rating; name yours with --columns=rating=NAME"):
        csv.read(write(path, HEADER), min_rating=4.0)


def test_repeats_of_an_event_are_dropped_or_kept_and_counted(tmp_path):
    path = write(tmp_path / "my.csv", HEADER + "u,i,1,A\nu,j,1,B\nu,i,1,A\nv,i,1,A\nu,i,2,A\nu,i,1,C\n")
    once = [("u", "i", 1), ("u", "j", 1), ("v", "i", 1), ("u", "i", 2)]
    log = csv.read(path)
    assert events_of(log) == once
    assert log.dropped["repeat of an event (same user, item and time): events"] == 2
    log = csv.read(path, duplicates="keep")
    assert len(log) == 6
    assert log.notes == {"repeat of an event (same user, item and time), kept: events": 2}
    with pytest.raises(InputError, match="--duplicates=no: expected one of drop, keep"):
        csv.read(path, duplicates="no")
