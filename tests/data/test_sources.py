"""Each source on files as users have them: odd titles, odd dates, and every fault told with its file and line."""

import csv as csv_module
import gzip
import importlib
import inspect
import json
import pkgutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from igd_jax.core.errors import InputError
from igd_jax.data import sources
from igd_jax.data.interactions import Interactions, to_prepared
from igd_jax.data.prepared import Prepared
from igd_jax.data.source_io import parse_timestamp
from igd_jax.data.sources import amazon2018, csv, d3, movielens

HEADER = "user,item,timestamp,title\n"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def events_of(log):
    columns = log.user.tolist(), log.item.tolist(), log.timestamp.tolist()
    return [(log.user_ids[user], log.item_ids[item], time) for user, item, time in zip(*columns, strict=True)]


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(sources.__path__)])
def test_every_source_reads_a_path_into_events_or_published_splits(name):
    signature = inspect.signature(importlib.import_module(f"{sources.__name__}.{name}").read)
    first, *others = signature.parameters.values()
    assert first.name == "path"
    assert all(other.kind is other.KEYWORD_ONLY for other in others)
    assert all(other.default is not other.empty for other in others)
    assert signature.return_annotation in (Interactions, Prepared)


# --- timestamps


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2018-11-01", 1541030400),
        ("2018-11-01T00:00:00", 1541030400),
        ("2018-11-01 00:00:00.9", 1541030400),
        ("2018-11-01T00:00:00Z", 1541030400),
        ("2018-11-01T02:00:00+02:00", 1541030400),
        ("1541030400", 1541030400),
        ("1541030400.7", 1541030400),
        ("1541030400123", 1541030400),
        ("1.5410304e9", 1541030400),
        ("0", 0),
        ("-86400", -86400),
        ("1960-01-01", -315619200),
    ],
)
def test_timestamps_are_utc_seconds(text, seconds):
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize("text", ["", "yesterday", "31.01.2018", "20181101", "nan", "inf", "1e30", "2018-13-01"])
def test_other_timestamps_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_timestamp(text)


# --- csv


def test_csv_columns_come_in_any_order_among_others(tmp_path):
    text = "title,rating,timestamp,item,user\nA,5,2018-11-01,i,u\nB,3,1541030401,j,u\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert events_of(log) == [("u", "i", 1541030400), ("u", "j", 1541030401)]
    assert log.titles == ["A", "B"]


def test_csv_titles_stay_text(tmp_path):
    titles = ["None", "NA", "nan", "null", "1e5", "007", 'He said "no", twice', "two\nlines", "Ünïcode 書 🎲", "#", "="]
    path = tmp_path / "my.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv_module.writer(file)
        writer.writerow(["user", "item", "timestamp", "title"])
        writer.writerows([["u", f"00{i}", i, title] for i, title in enumerate(titles)])
    log = csv.read(path)
    assert log.titles == titles
    assert log.item_ids[7] == "007"


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n\n"])
def test_csv_of_other_programs_reads_alike(tmp_path, change):
    text = HEADER + "u, i ,1,A\nv,j,2, B \n"
    log = csv.read(write(tmp_path / "my.csv", change(text)))
    assert (events_of(log), log.titles) == ([("u", "i", 1), ("v", "j", 2)], ["A", "B"])


def test_csv_keeps_an_items_first_title_and_counts_the_items_with_others(tmp_path):
    text = HEADER + "u,i,2,First\nu,i,3,Second\nu,i,4,Third\nu,j,6,Only\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert log.titles == ["First", "Only"]
    assert log.dropped == {"title other than the item's first: items": 1}


def test_csv_keeps_an_items_first_words_and_leaves_out_fields_that_no_item_has(tmp_path):
    text = "user,item,timestamp,title,brand,category,description\nu,i,1,A,,x,\nu,j,2,B,,,\nu,i,3,A, Wing ,y,\n"
    log = csv.read(write(tmp_path / "my.csv", text))
    assert log.texts == {"brand": ["Wing", ""], "category": ["x", ""]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column user, item, timestamp, title; the header has nothing"),
        ("user,item,title\nu,i,A\n", "line 1: no column timestamp; the header has user, item, title"),
        ("user\titem\ttimestamp\ttitle\n", "line 1: no column user, item"),
        (HEADER, "has a header but no rows"),
        (HEADER + "u,i,1,A\nu,i,1st of May,A\n", "line 3: cannot read timestamp '1st of May'"),
        (HEADER + 'u,i,1,"A\nB"\nu,i,1.5.18,A\n', "line 4: cannot read timestamp '1.5.18'"),
        (HEADER + "u,i,1\n", "line 2: 3 cells where the header has 4"),
        (HEADER + "u,i,1,A, B\n", "line 2: 5 cells where the header has 4; a cell that holds a comma needs quotes"),
        (HEADER + "u,i,1,A\n ,i,2,A\n", "line 3: user is empty"),
        (HEADER + "u,,1,A\n", "line 2: item is empty"),
        (HEADER + "u,i,,A\n", "line 2: timestamp is empty"),
        (HEADER + "u,i,1,   \n", "line 2: title is empty"),
        (HEADER + 'u,i,1,"A" B\n', "line 2: "),
        (HEADER + 'u,i,1,"A\nu,i,2,B\n', "unexpected end of data"),
        (HEADER.encode() + b"u,i,1,\xff\xfe\n", "is not utf-8 text"),
    ],
)
def test_csv_faults_are_told_with_their_line(tmp_path, text, message):
    path = write(tmp_path / "my.csv", text)
    with pytest.raises(InputError) as caught:
        csv.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_csv_must_be_a_file(tmp_path):
    with pytest.raises(InputError, match="Is a directory"):
        csv.read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        csv.read(tmp_path / "none.csv")


# --- published splits

D3_HEADER = "user_id,item_asins,history_item_title,item_title,history_item_id,item_id,timestamp\n"
D3_ROW = '7,x,"[\'A\', ""B\'s""]",NA,"[0, 1]",2,15\n'


def published(folder, *, train=D3_ROW, info="A\t0\nB's\t1\nNA\t2\nTab\tin it\t3\n", flat=False):
    names = {split: f"Toys.{split}.csv" if flat else f"{split}/Toys_5.csv" for split in ("train", "valid", "test")}
    for split, name in names.items():
        write(folder / name, D3_HEADER + (train if split == "train" else D3_ROW))
    write(folder / ("Toys.info.txt" if flat else "info/Toys_5.txt"), info)
    return folder


@pytest.mark.parametrize("flat", [False, True])
def test_d3_keeps_published_rows_and_the_whole_catalogue(tmp_path, flat):
    two = D3_ROW + "8,x,['NA'],Tab\tin it,[2],3,5\n"
    prepared = d3.read(published(tmp_path, train=two, flat=flat))
    train = prepared.splits["train"]
    assert prepared.titles == ["A", "B's", "NA", "Tab\tin it"]
    assert [train.history(r).tolist() for r in range(2)] == [[0, 1], [2]]
    assert (train.user.tolist(), train.target.tolist(), train.timestamp.tolist()) == (["7", "8"], [2, 3], [15, 5])
    assert prepared.meta["rows"] == {"train": 2, "valid": 1, "test": 1}
    assert prepared.meta["dropped"] == {}


def test_d3_items_are_numbered_by_the_info_file(tmp_path):
    prepared = d3.read(published(tmp_path, info="NA\t2\nA\t0\nB's\t1\n"))
    assert prepared.item_ids == ["2", "0", "1"]
    assert prepared.splits["train"].history(0).tolist() == [1, 2]
    assert prepared.splits["train"].target.tolist() == [0]


def test_d3_counts_what_it_drops_and_what_disagrees(tmp_path):
    rows = D3_ROW + "8,x,[],NA,[],2,5\n" + "9,x,['A'],Not NA,[0],2,6\n" + "9,x,['Not A'],NA,[0],2,6\n"
    prepared = d3.read(published(tmp_path, train=rows, info="A\t0\nB's\t1\nNA\t2\n \t3\nOther\t0\n"))
    assert prepared.meta["rows"]["train"] == 3
    assert prepared.titles == ["A", "B's", "NA", " "]
    assert prepared.meta["dropped"] == {
        "title other than the item's first in the info file: lines": 1,
        "title other than in the info file: rows": 2,
        "no history: rows": 1,
    }
    assert prepared.meta["notes"] == {"items with a blank title, kept as published": 1}


@pytest.mark.parametrize(
    ("train", "info", "message"),
    [
        ("7,x,\"['A']\",NA,__import__('os').getpid(),2,15\n", "A\t0\nB\t1\nNA\t2\n", "line 2: expected a list"),
        ("7,x,['A'],NA,(0),2,15\n", None, "line 2: expected a list such as [12, 7], got '(0)'"),
        ("7,x,['A'],NA,[9],2,15\n", None, "line 2: item '9' is not in the info file"),
        ("7,x,['A'],NA,[0],2,noon\n", None, "line 2: invalid literal for int()"),
        (D3_ROW + "7,x,['A'],NA,[0],2\n", None, "line 3: 6 cells where the header has 7"),
        (D3_ROW, "A\t0\nB's 1\n", 'line 2: expected a title, a tab and an id, got "B\'s 1"'),
        (D3_ROW, "", "is empty"),
    ],
)
def test_d3_faults_are_told_with_their_line(tmp_path, train, info, message):
    folder = published(tmp_path, train=train, **({} if info is None else {"info": info}))
    with pytest.raises(InputError) as caught:
        d3.read(folder)
    assert message in str(caught.value)


def test_d3_wants_each_file_once(tmp_path):
    with pytest.raises(InputError, match=r"0 files like train/\*\.csv or \*\.train\.csv"):
        d3.read(tmp_path)
    write(published(tmp_path) / "test/Other.csv", D3_HEADER)
    with pytest.raises(InputError, match=r"2 files like test/\*\.csv .*Other\.csv, Toys_5\.csv"):
        d3.read(tmp_path)


def test_d3_reads_amazon_books_exactly(shared):
    prepared = d3.read(shared / "data/amazon_books")
    assert prepared.meta["rows"] == {"train": 31_554, "valid": 3_506, "test": 4_383}
    assert prepared.meta["items"] == 6_344
    assert prepared.meta["dropped"] == {}
    golden = json.loads((shared / "golden/igd_amazon_books/item_frequency.json").read_text(encoding="utf-8"))
    assert Counter(prepared.titles[item] for item in prepared.splits["train"].target) == golden


# --- MovieLens


@pytest.mark.parametrize("million", [False, True])
def test_movielens_reads_both_layouts(tmp_path, million):
    part, bar = ("::", "::") if million else ("\t", "|")
    ratings = "".join(part.join(row) + "\n" for row in [("5", "20", "3", "881250949"), ("6", "3", "1", "881250950")])
    flags = ["0|" * 5 + "1|0|0|1" + "|0" * 10, "1" + "|0" * 18]  # comedy and drama; unknown
    genres = ["Drama", "x|y"] if million else [f"1-Jan-95|||{films}" for films in flags]
    movies = f"3{bar}Les Misérables, (1995){bar}{genres[0]}\n20{bar}NA{bar}{genres[1]}\n99{bar}Never rated{bar}x\n"
    write(tmp_path / ("ratings.dat" if million else "u.data"), ratings)
    write(tmp_path / ("movies.dat" if million else "u.item"), movies.encode("latin-1"))
    log = movielens.read(tmp_path)
    assert events_of(log) == [("5", "20", 881250949), ("6", "3", 881250950)]
    assert log.titles == ["NA", "Les Misérables, (1995)"]
    assert log.texts == ({"category": ["x, y", "Drama"]} if million else {"category": ["", "Comedy, Drama"]})


@pytest.mark.parametrize(
    ("ratings", "message"),
    [("5\t20\t3\n", "line 1: 3 fields, expected 4"), ("5\t2\t3\t8\n5\t20\t3\tnoon\n", "line 2: timestamp 'noon'")],
)
def test_movielens_faults_are_told_with_their_line(tmp_path, ratings, message):
    write(tmp_path / "u.data", ratings)
    with pytest.raises(InputError, match=message):
        movielens.read(tmp_path)


def test_movielens_says_which_files_it_wants(tmp_path):
    with pytest.raises(InputError, match=r"neither u\.data and u\.item \(100K\) nor ratings\.dat and movies\.dat"):
        movielens.read(tmp_path)
    write(tmp_path / "u.data", "5\t2\t3\t8\n")
    with pytest.raises(InputError, match=r"u\.item does not exist"):
        movielens.read(tmp_path)


def test_movielens_100k_is_read_whole(shared):
    log = movielens.read(shared / "data/ml-100k")
    assert (len(log), len(log.user_ids), len(log.item_ids)) == (100_000, 943, 1_682)
    assert log.titles[log.item_ids.index("1")] == "Toy Story (1995)"
    assert log.texts["category"][log.item_ids.index("1")] == "Animation, Children's, Comedy"
    assert to_prepared(log).meta["rows"] == {"train": 79_245, "valid": 9_906, "test": 9_906}


# --- Amazon 2018


def seconds(year, month=1, day=1):
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def review(user, item, time):
    return {"overall": 5.0, "reviewerID": user, "asin": item, "style": {"Size:": " S"}, "unixReviewTime": time}


def amazon(folder, reviews, titles, *, name="Toys_5"):
    """Write both files; titles are (asin, title), the title left out where it is None."""
    metas = [{"asin": asin, "price": 1.0} | ({} if title is None else {"title": title}) for asin, title in titles]
    for path, records in ((f"{name}.json.gz", reviews), ("meta_Toys.json.gz", metas)):
        write(folder / path, gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return folder


def test_amazon_cleans_titles_and_counts_those_it_refuses(tmp_path):
    titles = {
        "a": ' "Tom &amp; Jerry&quot; ',
        "b": "<span id='x'>",
        "c": "x",
        "d": " ".join(["word"] * 21),
        "e": " ".join(["word"] * 20),
        "f": None,
        "h": "&amp;amp; once",
    }
    metas = [*titles.items(), ("a", "Second title"), ("never reviewed", "T")]
    reviews = [review("u", item, seconds(2018)) for item in "abcdefgh"]
    log = amazon2018.read(amazon(tmp_path, reviews, metas), k_core=0, min_items=1)
    assert dict(zip(log.item_ids, log.titles, strict=True)) == {
        "a": "Tom & Jerry",
        "e": titles["e"],
        "h": "&amp; once",
    }
    assert log.dropped["no title: items"] == 5
    assert log.notes | {"window": ""} == {
        "window": "",
        "titles with <span id": 1,
        "titles shorter than 2 characters": 2,
        "titles of more than 20 words": 1,
        "metadata records after an item's first": 1,
        "items without metadata": 1,
    }


def test_amazon_texts_are_plain_and_of_the_items_that_are_left(tmp_path):
    metas = [
        {"asin": "a", "title": "Title a", "brand": "A &amp; B", "category": ["Toys", "Toys", "</span> <b>Kites"]},
        {"asin": "b", "title": "x", "brand": "Dropped with its item"},
        {"asin": "c", "title": "Title c", "description": ["<p>Flies</p>\n<br>high", "", "far"], "category": None},
        {"asin": "a", "brand": "Second record"},
    ]
    folder = amazon(tmp_path, [review("u", item, seconds(2018)) for item in "abc"], [])
    write(folder / "meta_Toys.json.gz", gzip.compress("".join(json.dumps(meta) + "\n" for meta in metas).encode()))
    log = amazon2018.read(folder, k_core=0, min_items=1)
    assert log.item_ids == ["a", "c"]
    assert log.texts == {
        "description": ["", "Flies high, far"],
        "brand": ["A & B", ""],
        "category": ["Toys, Kites", ""],
    }


def test_amazon_window_is_inclusive_in_utc(tmp_path):
    times = [seconds(2017, 10) - 1, seconds(2017, 10), seconds(2018, 11), seconds(2018, 11) + 1]
    folder = amazon(tmp_path, [review("u", "a", time) for time in times], [("a", "Title")])
    log = amazon2018.read(folder, k_core=0, min_items=1)
    assert log.timestamp.tolist() == times[1:3]
    assert log.notes["window"] == "2017-10-01 to 2018-11-01"
    assert log.dropped["outside the time window: events"] == 2


@pytest.mark.parametrize(
    ("min_items", "window", "n_items"),
    [
        (1, "2017-10-01 to 2018-11-01", 1),
        (2, "2015-10-01 to 2018-11-01", 2),
        (3, "2010-10-01 to 2018-11-01 (the whole data: 2 items, fewer than 3)", 2),
    ],
)
def test_amazon_window_widens_until_enough_items_survive_the_core(tmp_path, min_items, window, n_items):
    # Item b has its second event only from 2015 on; c never has two.
    reviews = [review("u", "a", seconds(2018)), review("v", "a", seconds(2018, 2)), review("u", "a", seconds(2018, 3))]
    reviews += [review("v", "a", seconds(2018, 4)), review("u", "b", seconds(2018)), review("u", "b", seconds(2016))]
    reviews += [review("v", "c", seconds(2011))]
    folder = amazon(tmp_path, reviews, [(item, f"Title {item}") for item in "abc"])
    log = amazon2018.read(folder, k_core=2, min_items=min_items)
    assert (log.notes["window"], len(log.item_ids)) == (window, n_items)


def test_amazon_prefers_the_five_core_file_and_takes_the_full_one(tmp_path):
    full = amazon(tmp_path, [review("u", "a", seconds(2018))], [("a", "Title")], name="Toys")
    assert amazon2018.read(full, k_core=0, min_items=1).user_ids == ["u"]
    both = amazon(tmp_path, [review("v", "a", seconds(2018))], [("a", "Title")])
    assert amazon2018.read(both, k_core=0, min_items=1).user_ids == ["v"]


def test_amazon_incomplete_records_are_counted(tmp_path):
    partial = {"asin": "a", "unixReviewTime": seconds(2018)}
    folder = amazon(tmp_path, [partial, review("u", "a", seconds(2018))], [("a", "Title")])
    log = amazon2018.read(folder, k_core=0, min_items=1)
    assert log.dropped["no reviewerID, asin or unixReviewTime: events"] == 1


def test_amazon_cut_download_is_named(tmp_path, shared):
    for name in ("Gift_Cards_5.json.gz", "meta_Gift_Cards.json.gz"):
        write(tmp_path / name, (shared / "data/amazon_raw" / name).read_bytes())
    whole = (tmp_path / "Gift_Cards_5.json.gz").read_bytes()
    for cut in (len(whole) // 2, len(whole) - 4):
        write(tmp_path / "Gift_Cards_5.json.gz", whole[:cut])
        with pytest.raises(InputError, match=r"Gift_Cards_5\.json\.gz .*[Tt]runcated"):
            amazon2018.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{'asin': 'python, not json'}\n",
        '{"asin": "a", "reviewer',
        '{"asin": 5, "reviewerID": "u", "unixReviewTime": 1}\n',
        '{"asin": "\xff", "reviewerID": "u", "unixReviewTime": 1}\n',
        '{"other": "file"}\n',
    ],
)
def test_amazon_damage_names_the_file(tmp_path, text):
    folder = amazon(tmp_path, [], [("a", "Title")])
    for content in (text.encode("latin-1"), gzip.compress(text.encode("latin-1"))):
        write(folder / "Toys_5.json.gz", content)
        with pytest.raises(InputError, match=r"Toys_5\.json\.gz"):
            amazon2018.read(folder)


def test_amazon_wants_one_category(tmp_path):
    with pytest.raises(InputError, match=r"0 files like meta_CATEGORY\.json\.gz"):
        amazon2018.read(tmp_path)
    amazon(tmp_path, [], [])
    (tmp_path / "Toys_5.json.gz").unlink()
    with pytest.raises(InputError, match=r"neither Toys_5\.json\.gz nor Toys\.json\.gz"):
        amazon2018.read(tmp_path)


def test_amazon_gift_cards_equal_a_loop_over_records(shared):
    def records(name):
        with gzip.open(shared / "data/amazon_raw" / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    titles, brands = {}, {}
    for meta in records("meta_Gift_Cards.json.gz"):
        brands.setdefault(meta["asin"], meta.get("brand") or "")
        title = meta.get("title", "<span id").replace("&quot;", '"').replace("&amp;", "&").strip(" ").strip('"')
        if "<span id" not in meta.get("title", "<span id") and len(title) > 1 and len(title.split(" ")) <= 20:
            titles.setdefault(meta["asin"], title)
    events = [
        (each["reviewerID"], each["asin"], each["unixReviewTime"])
        for each in records("Gift_Cards_5.json.gz")
        if each["asin"] in titles and each["unixReviewTime"] <= seconds(2018, 11)
    ]
    size = None
    while size != len(events):
        size = len(events)
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        events = [event for event in events if users[event[0]] >= 5 and items[event[1]] >= 5]
    log = amazon2018.read(shared / "data/amazon_raw")
    assert events_of(log) == events
    assert log.titles == [titles[item] for item in log.item_ids]
    assert log.texts["brand"] == [brands[item] for item in log.item_ids]
    assert sum(map(bool, log.texts["brand"])) == 118
    assert to_prepared(log).meta["rows"] == {"train": 2003, "valid": 250, "test": 251}
