"""The source amazon2018: titles, texts, the time window, and damaged downloads."""

import gzip
import itertools
import json
from collections import Counter

import pytest
from source_files import amazon, events_of, review, seconds, write

from igd_jax.core.errors import InputError
from igd_jax.data.amazon import clean_text
from igd_jax.data.interactions import to_prepared
from igd_jax.data.sources import amazon2018


def test_cleans_titles_and_counts_those_it_refuses(tmp_path):
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


def test_texts_are_plain_and_of_the_items_that_are_left(tmp_path):
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


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("waists < 32 inches and chests > 40 inches", "waists < 32 inches and chests > 40 inches"),
        ("a &lt;b&gt;x&lt;/b&gt; c, 1 &lt; 2 &gt; 0", "a x c, 1 < 2 > 0"),
        ("if a <b and c> d, <new> &lt;sic&gt;", "if a <b and c> d, <new> <sic>"),
        ('<a href="x">one</a> <FONT size=2 color="red">two</FONT>\n<h2 >three', "one two three"),
        ("<P class='a'>one<br/>two</p> <!-- no words -->three<!DOCTYPE html>", "one two three"),
    ],
)
def test_texts_lose_tags_and_no_words(raw, plain):
    assert clean_text(raw) == plain


def test_window_is_inclusive_in_utc(tmp_path):
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
def test_window_widens_until_enough_items_survive_the_core(tmp_path, min_items, window, n_items):
    # Item b has its second event only from 2015 on; c never has two.
    reviews = [review("u", "a", seconds(2018)), review("v", "a", seconds(2018, 2)), review("u", "a", seconds(2018, 3))]
    reviews += [review("v", "a", seconds(2018, 4)), review("u", "b", seconds(2018)), review("u", "b", seconds(2016))]
    reviews += [review("v", "c", seconds(2011))]
    folder = amazon(tmp_path, reviews, [(item, f"Title {item}") for item in "abc"])
    log = amazon2018.read(folder, k_core=2, min_items=min_items)
    assert (log.notes["window"], len(log.item_ids)) == (window, n_items)


def test_prefers_the_five_core_file_and_takes_the_full_one(tmp_path):
    full = amazon(tmp_path, [review("u", "a", seconds(2018))], [("a", "Title")], name="Toys")
    assert amazon2018.read(full, k_core=0, min_items=1).user_ids == ["u"]
    both = amazon(tmp_path, [review("v", "a", seconds(2018))], [("a", "Title")])
    assert amazon2018.read(both, k_core=0, min_items=1).user_ids == ["v"]


def test_incomplete_records_are_counted(tmp_path):
    partial = {"asin": "a", "unixReviewTime": seconds(2018)}
    folder = amazon(tmp_path, [partial, review("u", "a", seconds(2018))], [("a", "Title")])
    log = amazon2018.read(folder, k_core=0, min_items=1)
    assert log.dropped["no reviewerID, asin or unixReviewTime: events"] == 1


@pytest.mark.parametrize("blank", ["", "  ", "\u00a0"])
def test_a_blank_id_is_a_missing_one(tmp_path, blank):
    reviews = [review(blank, "a", seconds(2018)), review("u", blank, seconds(2018)), review("u", "a", seconds(2018))]
    folder = amazon(tmp_path, reviews, [("a", "Title"), (blank, "Title of no item")])
    log = amazon2018.read(folder, k_core=0, min_items=1)
    assert events_of(log) == [("u", "a", seconds(2018))]
    assert log.dropped["no reviewerID, asin or unixReviewTime: events"] == 2


def test_how_fast_a_file_of_one_block_is_read(tmp_path, monkeypatch, capsys):
    clock = itertools.count(step=10)
    monkeypatch.setattr("igd_jax.core.log.time.monotonic", lambda: next(clock))
    folder = amazon(tmp_path, [review("u", "a", seconds(2018))], [("a", "Title")])
    size = (folder / "Toys_5.json.gz").stat().st_size
    amazon2018.read(folder, k_core=0, min_items=1)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Toys_5.json.gz: ")]
    assert told == [
        f"Toys_5.json.gz: {size - 1}/{size} bytes ({(size - 1) / 10:,.1f}/s, 0 s left)",
        f"Toys_5.json.gz: {size}/{size} bytes ({size / 20:,.1f}/s)",
    ]


def test_cut_download_is_named(tmp_path, shared):
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
def test_damage_names_the_file(tmp_path, text):
    folder = amazon(tmp_path, [], [("a", "Title")])
    for content in (text.encode("latin-1"), gzip.compress(text.encode("latin-1"))):
        write(folder / "Toys_5.json.gz", content)
        with pytest.raises(InputError, match=r"Toys_5\.json\.gz"):
            amazon2018.read(folder)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"description": "one text"}, "description of a record is or holds a JSON string; expected a list of texts"),
        ({"category": [5]}, "category of a record is or holds a JSON number; expected a list of texts"),
        ({"brand": ["A"]}, "brand of a record is or holds a JSON array; expected a text"),
        ({"title": {"en": "A"}}, "title of a record is or holds a JSON object; expected a text"),
    ],
)
def test_metadata_of_other_types_are_one_clear_line(tmp_path, record, message):
    folder = amazon(tmp_path, [review("u", "a", seconds(2018))], [])
    meta = json.dumps({"asin": "a", "title": "Title"} | record) + "\n"
    write(folder / "meta_Toys.json.gz", gzip.compress(meta.encode()))
    with pytest.raises(InputError) as caught:
        amazon2018.read(folder, k_core=0, min_items=1)
    assert message in str(caught.value)
    assert "meta_Toys.json.gz" in str(caught.value)


def test_reviews_are_kept_from_a_rating_on(tmp_path, capsys):
    stars = {"a": 5, "b": 4.0, "c": 3.0, "d": None}
    reviews = [review("u", item, seconds(2018)) | {"overall": number} for item, number in stars.items()]
    folder = amazon(tmp_path, reviews, [(item, f"Title {item}") for item in stars])
    log = amazon2018.read(folder, k_core=0, min_items=1, min_rating=4.0)
    assert log.item_ids == ["a", "b"]
    assert (log.dropped["no rating: events"], log.dropped["rating below 4: events"]) == (1, 1)
    assert "overall as rating, title" in capsys.readouterr().out
    assert len(amazon2018.read(folder, k_core=0, min_items=1)) == 4
    assert "not read: overall, all others" in capsys.readouterr().out


def test_repeats_are_kept_as_published_or_dropped_before_the_core(tmp_path):
    reviews = [review("u", "a", seconds(2018)), review("u", "a", seconds(2018)), review("u", "a", seconds(2018, 2))]
    reviews += [review("v", "b", seconds(2018)), review("v", "b", seconds(2018))]
    folder = amazon(tmp_path, reviews, [("a", "Title a"), ("b", "Title b")])
    log = amazon2018.read(folder, k_core=2, min_items=1)
    assert (len(log), log.notes["repeat of an event (same user, item and time), kept: events"]) == (5, 2)
    log = amazon2018.read(folder, k_core=2, min_items=1, duplicates="drop")
    assert events_of(log) == [("u", "a", seconds(2018)), ("u", "a", seconds(2018, 2))]
    assert log.dropped["repeat of an event (same user, item and time): events"] == 2


def test_wants_one_category(tmp_path):
    with pytest.raises(InputError, match=r"0 files like meta_CATEGORY\.json\.gz"):
        amazon2018.read(tmp_path)
    amazon(tmp_path, [], [])
    (tmp_path / "Toys_5.json.gz").unlink()
    with pytest.raises(InputError, match=r"neither Toys_5\.json\.gz nor Toys\.json\.gz"):
        amazon2018.read(tmp_path)


def test_gift_cards_equal_a_loop_over_records(shared):
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
