"""The source movielens: all layouts, and every fault told with its file and line."""

import pytest
from source_files import LONG, events_of, short, write

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import to_prepared
from igd_jax.data.sources import movielens


@pytest.mark.parametrize(("million", "encoding"), [(False, "latin-1"), (True, "latin-1"), (True, "utf-8")])
def test_reads_both_layouts(tmp_path, million, encoding):
    part, bar = ("::", "::") if million else ("\t", "|")
    ratings = "".join(part.join(row) + "\n" for row in [("5", "20", "3", "881250949"), ("6", "3", "1", "881250950")])
    flags = ["0|" * 5 + "1|0|0|1" + "|0" * 10, "1" + "|0" * 18]  # comedy and drama; unknown
    genres = ["Drama", "x|y"] if million else [f"1-Jan-95|||{films}" for films in flags]
    movies = f"3{bar}Les Misérables, (1995){bar}{genres[0]}\n20{bar}NA{bar}{genres[1]}\n99{bar}Never rated{bar}x\n"
    write(tmp_path / ("ratings.dat" if million else "u.data"), ratings)
    write(tmp_path / ("movies.dat" if million else "u.item"), movies.encode(encoding))
    log = movielens.read(tmp_path)
    assert events_of(log) == [("5", "20", 881250949), ("6", "3", 881250950)]
    assert log.titles == ["NA", "Les Misérables, (1995)"]
    assert log.texts == ({"category": ["x, y", "Drama"]} if million else {"category": ["", "Comedy, Drama"]})


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("5\t20\t3\n", "line 1: 3 fields, expected 4"),
        ("5\t2\t3\t8\n5\t20\t3\tnoon\n", "line 2: timestamp 'noon'"),
        (f"5\t2\t3\t{LONG}\n", "line 1: timestamp .* is not epoch seconds"),
        ("5\t2\t3\t253402300800\n", "line 1: timestamp '253402300800' is not epoch seconds from the year 1 to 9999"),
        ("5\t2\tgood\t8\n", "line 1: rating 'good' is not a number"),
        ("5\t2\t3\t8\n\0\n", "line 2: a NUL byte"),
    ],
    ids=short,
)
def test_faults_are_told_with_their_line(tmp_path, ratings, message):
    write(tmp_path / "u.data", ratings)
    with pytest.raises(InputError, match=message) as caught:
        movielens.read(tmp_path, min_rating=1.0)
    assert len(str(caught.value)) < 500


def test_reads_the_layout_of_20m_and_later_whose_titles_may_be_quoted(tmp_path):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n5,20,3.5,881250949\n6,3,0.5,881250950\n")
    movies = '3,"Misérables, Les (1995)",Drama|War\n20,NA,(no genres listed)\n99,Never rated,x\n'
    write(tmp_path / "movies.csv", f"movieId,title,genres\n{movies}")
    log = movielens.read(tmp_path)
    assert events_of(log) == [("5", "20", 881250949), ("6", "3", 881250950)]
    assert log.titles == ["NA", "Misérables, Les (1995)"]
    assert log.texts == {"category": ["", "Drama, War"]}
    assert len(movielens.read(tmp_path, min_rating=1.0)) == 1
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n5,20,3.5,noon\n")
    with pytest.raises(InputError, match=r"ratings\.csv line 2: timestamp 'noon'"):
        movielens.read(tmp_path)
    write(tmp_path / "ratings.csv", "user,movie,rating,timestamp\n")
    with pytest.raises(InputError, match=r"ratings\.csv: no column userId, movieId"):
        movielens.read(tmp_path)


def test_ratings_are_a_filter_and_told(tmp_path, capsys):
    write(tmp_path / "u.data", "5\t2\t3\t8\n5\t2\t4\t9\n5\t2\t4\t9\n6\t3\t2\t8\n")
    write(tmp_path / "u.item", "2|Two\n3|Three\n")
    assert len(movielens.read(tmp_path, duplicates="keep")) == 4
    told = capsys.readouterr().out.splitlines()[0]
    assert told == "columns: user, item, timestamp, title, genres as category; not read: rating, release dates, link"
    log = movielens.read(tmp_path, min_rating=4.0)
    assert events_of(log) == [("5", "2", 9)]
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "rating below 4: events": 2,
        "rating below 4: users": 1,
        "rating below 4: items": 1,
        "repeat of an event (same user, item and time): events": 1,
    }
    assert "user, item, rating, timestamp" in capsys.readouterr().out


def test_says_which_files_it_wants(tmp_path):
    with pytest.raises(InputError, match=r"neither u\.data and u\.item \(100K\) nor ratings\.dat and movies\.dat"):
        movielens.read(tmp_path)
    write(tmp_path / "u.data", "5\t2\t3\t8\n")
    with pytest.raises(InputError, match=r"u\.item does not exist"):
        movielens.read(tmp_path)


def test_100k_is_read_whole(shared):
    log = movielens.read(shared / "data/ml-100k")
    assert (len(log), len(log.user_ids), len(log.item_ids)) == (100_000, 943, 1_682)
    assert log.titles[log.item_ids.index("1")] == "Toy Story (1995)"
    assert log.texts["category"][log.item_ids.index("1")] == "Animation, Children's, Comedy"
    assert to_prepared(log).meta["rows"] == {"train": 79_245, "valid": 9_906, "test": 9_906}
