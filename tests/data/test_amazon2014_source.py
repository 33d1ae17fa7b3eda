"""The source amazon2014: metadata in Python literals, events of all years, and damaged downloads."""

import ast
import gzip
import json
from collections import Counter

import pytest
from source_files import events_of, pack, review, seconds, short, write

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import to_prepared
from igd_jax.data.sources import amazon2014

META = "meta_Toys.json.gz"


def toys(folder, reviews, metas, *, name="reviews_Toys_5"):
    """Write both files; a line of metadata is a record or, as text, itself."""
    pack(folder / f"{name}.json.gz", map(json.dumps, reviews))
    pack(folder / META, [meta if isinstance(meta, str) else repr(meta) for meta in metas])
    return folder


def titled(items):
    return [{"asin": item, "title": f"Title {item}"} for item in items]


def test_titles_and_texts_come_out_of_literals(tmp_path):
    metas = [
        {"asin": "never reviewed", "title": "T", "categories": [[5 * "x"]]},
        {
            "asin": "a",
            "title": 'Tom\'s "Cat" &amp; Dog',
            "description": "<p>Flies</p>\n high",
            "brand": "A &amp; B",
            "price": 1.5,
            "related": {"also_bought": ["b"]},
            "categories": [["Toys", "Kites"], ["Toys", "Sale"]],
        },
        {"asin": "b", "brand": "Untitled", "categories": [["Toys"]]},
        {"asin": "c", "title": "Title c", "description": None, "categories": []},
        {"asin": "a", "title": "Second record"},
    ]
    log = amazon2014.read(toys(tmp_path, [review("u", item, seconds(2014)) for item in "abcd"], metas), k_core=0)
    assert log.item_ids == ["a", "c"]
    assert log.titles == ['Tom\'s "Cat" & Dog', "Title c"]
    assert log.texts == {
        "description": ["Flies high", ""],
        "brand": ["A & B", ""],
        "category": ["Toys, Kites, Sale", ""],
    }
    assert (log.dropped["no title: items"], log.dropped["no title: events"]) == (2, 2)
    assert log.notes == {
        "titles shorter than 2 characters": 1,
        "metadata records after an item's first": 1,
        "items without metadata": 1,
    }


def test_reviews_of_all_years_are_events(tmp_path, capsys):
    times = [seconds(1996, 5), seconds(2008), seconds(2014, 7, 23)]
    log = amazon2014.read(toys(tmp_path, [review("u", "a", time) for time in times], titled("a")), k_core=0)
    assert log.timestamp.tolist() == times
    assert not log.notes
    assert "brand, categories as category; not read: overall, all others" in capsys.readouterr().out


@pytest.mark.parametrize("time", [-62_135_596_801, 1_400_000_000_000])
def test_a_time_that_is_no_date_is_refused(tmp_path, time):
    folder = toys(tmp_path, [review("u", "a", seconds(2014)), review("u", "a", time)], titled("a"))
    with pytest.raises(InputError, match=f"reviews_Toys_5.*: unixReviewTime {time} is outside the years 1 to 9999"):
        amazon2014.read(folder, k_core=0)


def test_low_ratings_and_repeats_are_dropped_before_the_core(tmp_path):
    reviews = [review("u", "a", seconds(2014)), review("u", "a", seconds(2014)), review("u", "a", seconds(2013))]
    reviews += [review("v", "b", seconds(2014)), review("v", "b", seconds(2014))]
    reviews += [review("u", "a", seconds(2012)) | {"overall": 1.0}]
    folder = toys(tmp_path, reviews, titled("ab"))
    log = amazon2014.read(folder, k_core=2, min_rating=2.0)
    assert events_of(log) == [("u", "a", seconds(2014)), ("u", "a", seconds(2013))]
    assert log.dropped["repeat of an event (same user, item and time): events"] == 2
    assert log.dropped["rating below 2: events"] == 1
    assert len(amazon2014.read(folder, k_core=2, duplicates="keep")) == 6


def test_prefers_the_five_core_file_and_takes_the_full_one(tmp_path):
    full = toys(tmp_path, [review("u", "a", seconds(2014))], titled("a"), name="reviews_Toys")
    assert amazon2014.read(full, k_core=0).user_ids == ["u"]
    both = toys(tmp_path, [review("v", "a", seconds(2014))], titled("a"))
    assert amazon2014.read(both, k_core=0).user_ids == ["v"]


def test_names_of_another_year_are_not_taken(tmp_path):
    toys(tmp_path, [review("u", "a", seconds(2014))], titled("a"), name="Toys_5")
    with pytest.raises(InputError, match=r"neither reviews_Toys_5\.json\.gz nor reviews_Toys\.json\.gz"):
        amazon2014.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected a Python dict such as {'asin': '0001', ...}, got ''"),
        ("{'asin': 'b', 'title': 'cut", "expected a Python dict"),
        ("['b']", "expected a Python dict"),
        ('{"asin": "b", "title": null}', "expected a Python dict"),
        ("{'asin': __import__('os').getcwd()}", "expected a Python dict"),
        ("{[]: 'unhashable'}", "expected a Python dict"),
        ("[" * 9999, "expected a Python dict"),
        ("{'asin': 1" + "+1" * 9999 + "}", "expected a Python dict"),
        ("{'asin': 'b', 'title': '" + "x" * (1 << 20) + "'}", "longer than 1,048,576 characters"),
        ("{'asin': ['b']}", "asin is ['b']; expected a text"),
        ("{'asin': 'b', 'title': 5}", "title is 5; expected a text"),
        ("{'asin': 'b', 'title': '\\ud800'}", "title is '\\ud800'; expected a text"),
        ("{'asin': 'b', 'description': b'x'}", "description is b'x'; expected a text"),
        ("{'asin': 'b', 'brand': ['B']}", "brand is ['B']; expected a text"),
        ("{'asin': 'b', 'categories': [['Toys', 5]]}", "categories are [['Toys', 5]]; expected lists of texts"),
    ],
    ids=short,
)
def test_a_damaged_line_of_metadata_is_told_by_its_number(tmp_path, line, message):
    folder = toys(tmp_path, [review("u", "a", seconds(2014))], [*titled("a"), line])
    with pytest.raises(InputError) as caught:
        amazon2014.read(folder, k_core=0)
    assert f"{META} line 2: {message}" in str(caught.value)
    assert len(str(caught.value)) < 480


def test_cut_downloads_are_named(tmp_path):
    folder = toys(tmp_path, [review("u", "a", seconds(2014))], titled("a"))
    for name in (META, "reviews_Toys_5.json.gz"):
        write(folder / name, (folder / name).read_bytes()[:-9])
        with pytest.raises(InputError, match=f"{name} "):
            amazon2014.read(folder, k_core=0)


@pytest.mark.slow
def test_digital_music_equals_a_loop_over_records(shared):
    folder = shared / "data/amazon2014_digital_music"

    def records(name, parse):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            return [parse(line) for line in file]

    metas = {meta["asin"]: meta for meta in records("meta_Digital_Music.json.gz", ast.literal_eval)}
    events = [
        (each["reviewerID"], each["asin"], each["unixReviewTime"])
        for each in records("reviews_Digital_Music_5.json.gz", json.loads)
        if "title" in metas[each["asin"]]
    ]
    size = None
    while size != len(events):
        size = len(events)
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        events = [event for event in events if users[event[0]] >= 5 and items[event[1]] >= 5]
    log = amazon2014.read(folder)
    assert events_of(log) == events
    assert log.item_ids[0] == "5555991584"
    assert log.titles[0] == "Memory of Trees"
    assert log.texts["category"][0].startswith("CDs & Vinyl, New Age, Celtic New Age, Meditation, Pop, Rock")
    for name in ("description", "brand"):
        assert [bool(text) for text in log.texts[name]] == [bool(metas[item].get(name)) for item in log.item_ids]
    assert to_prepared(log).meta["rows"] == {"train": 1769, "valid": 221, "test": 222}


def test_an_unusable_first_title_is_not_replaced_by_that_of_a_later_record(tmp_path):
    metas = [{"asin": "a", "title": "x"}, *titled("aab")]
    log = amazon2014.read(toys(tmp_path, [review("u", item, seconds(2014)) for item in "ab"], metas), k_core=0)
    assert log.item_ids == ["b"]
    assert log.notes == {"titles shorter than 2 characters": 1, "metadata records after an item's first": 2}
