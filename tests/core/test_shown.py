"""What a message repeats is short enough for one line."""

from igd_jax.core.shown import listed, shortened, shown


def test_a_long_value_is_shown_by_its_ends():
    text = shown("a" * 500 + "z" * 500)
    assert len(text) < 200
    assert (text[:3], text[-3:]) == ("'aa", "zz'")
    assert shown("a b") == "'a b'"
    assert shown(10**5000) == "a number of 16,610 bits"


def test_a_shortened_text_has_the_length_asked_for():
    assert shortened("short", 20) == "short"
    assert shortened("a" * 500 + "b" * 500, 21) == "aaaaaaaaa...bbbbbbbbb"


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == ""
    names = listed("x" * 500 for _ in range(1000))
    assert len(names) < 1000
    assert names.endswith(" and 988 more")
