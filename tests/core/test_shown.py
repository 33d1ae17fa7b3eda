"""What a message repeats is short enough for one line."""

from igd_jax.core.shown import listed, shown


def test_a_long_value_is_shown_by_its_ends():
    text = shown("a" * 500 + "z" * 500)
    assert len(text) < 200
    assert (text[:3], text[-3:]) == ("'aa", "zz'")
    assert shown("a b") == "'a b'"
    assert shown(10**5000) == "a number of 16,610 bits"


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == ""
    names = listed("x" * 500 for _ in range(1000))
    assert len(names) < 1000
    assert names.endswith(" and 988 more")
