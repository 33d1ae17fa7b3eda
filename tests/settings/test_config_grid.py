"""Lists of values for a field: types, products, names, and what is refused."""

import pytest

from configs import common
from igd_jax.core.errors import InputError
from igd_jax.settings.config_grid import (
    Axis,
    changed,
    check_comparable,
    check_decodes,
    decodes,
    name_of,
    parse_axis,
    points,
)


@pytest.fixture
def config():
    config = common.get_config().lock()
    with config.unlocked():
        config.method.args.beta, config.method.args.prompt_loss = 0.1, False
    return config


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("decode.alpha=0,0.5", Axis("decode.alpha", [0.0, 0.5])),
        ("method.args.beta=1e-1", Axis("method.args.beta", [0.1])),
        ("train.seed=1,2", Axis("train.seed", [1, 2])),
        ("method.args.prompt_loss=true,false", Axis("method.args.prompt_loss", [True, False])),
        ("decode.collaborative=,a=b", Axis("decode.collaborative", ["", "a=b"])),
    ],
)
def test_values_have_the_type_of_the_field(config, text, axis):
    read = parse_axis(text, config, option="--grid")
    assert read == axis
    assert [type(value) for value in read.values] == [type(value) for value in axis.values]
    for value in read.values:
        changed(config, {read.field: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decode.alpha=", r"^--grid=decode.alpha= has no values; write --grid=FIELD=VALUE,VALUE"),
        ("decode.alpha", "has no values"),
        ("", "has no values"),
        ("decode.alpah=1", "no field decode.alpah; --help_config lists them all"),
        ("alpha=1", "no field alpha"),
        ("decode.alpha.x=1", "no field decode.alpha.x"),
        ("nothing.alpha=1", "no field nothing.alpha"),
        ("decode.alpha=0,many", "'many' cannot be read as float"),
        ("decode.alpha=0,,1", "'' cannot be read as float"),
        ("train.seed=1.5", "'1.5' cannot be read as int"),
        ("method.args.prompt_loss=perhaps", "'perhaps' cannot be read as bool"),
        ("decode.alpha=0,0.0", "has 0.0 twice"),
        ("eval.ks=1,2", "eval.ks is a tuple; only numbers"),
        ("decode=1", "decode is a ConfigDict; only numbers"),
    ],
)
def test_what_cannot_be_read_is_bad_input(config, text, message):
    with pytest.raises(InputError, match=message):
        parse_axis(text, config, option="--grid")


def test_fields_can_be_limited_to_some_sections(config):
    under = ("decode.", "method.args.")
    assert parse_axis("method.args.beta=0", config, option="--choose", under=under).field == "method.args.beta"
    with pytest.raises(
        InputError, match=r"train.seed cannot be varied here; expected a field of decode., method.args."
    ):
        parse_axis("train.seed=0", config, option="--choose", under=under)


@pytest.mark.parametrize(
    ("method", "field", "is_read"),
    [
        ("igd", "decode.alpha", True),
        ("igd", "method.args.beta", False),
        ("setrec", "method.args.beta", True),
        ("d3", "train.seed", False),
    ],
)
def test_which_fields_decoding_alone_reads(config, method, field, is_read):
    config = changed(config, {"method.name": method})
    assert decodes(field, config) is is_read
    if not is_read:
        with pytest.raises(InputError, match=f"^--choose names {field}, which decoding by {method} does not read; exp"):
            check_decodes(Axis(field, [1]), config, option="--choose")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("data.dir", "of different data cannot be compared; give each value as --config.data.dir, in a command and a"),
        ("decode.candidates", "among different candidates cannot be compared; give each value as --config.decode.cand"),
        ("data.candidates", "compared; set config.decode.candidates, among which all will rank, or give each value as"),
    ],
)
def test_what_metrics_of_different_rows_or_candidates_would_be_compared_for(config, field, told):
    with pytest.raises(InputError, match=rf"^--grid names {field}, but metrics .*{told}"):
        check_comparable(Axis(field, ["a", "b"]), config, option="--grid")
    check_comparable(Axis("data.candidates", ["a", "b"]), changed(config, {"decode.candidates": "warm"}), option="")


def test_numbers_of_train_rows_are_compared_only_among_candidates_that_do_not_follow_them(config):
    few = Axis("data.max_examples", [0, 1000])
    check_comparable(few, changed(config, {"data.candidates": "catalogue"}), option="--grid")
    for field in ("data.candidates", "decode.candidates"):
        with pytest.raises(
            InputError, match=r"names data.max_examples, .* that follow the train rows cannot be compared"
        ):
            check_comparable(few, changed(config, {field: "train"}), option="--grid")


def test_points_are_all_combinations_the_last_axis_fastest():
    axes = [Axis("a.x", [1, 2]), Axis("b.y", ["u", "v"])]
    assert list(points(axes)) == [{"a.x": x, "b.y": y} for x in (1, 2) for y in ("u", "v")]
    assert list(points([])) == [{}]
    with pytest.raises(InputError, match="varied twice"):
        list(points([axes[0], axes[0]]))


def test_a_changed_config_leaves_the_given_one(config):
    other = changed(config, {"decode.alpha": 0.9})
    assert (other.decode.alpha, config.decode.alpha) == (0.9, 0.2)
    assert other.eval.ks == config.eval.ks
    assert other.is_locked


def test_names_are_short_but_tell_fields_apart():
    assert name_of({"method.args.beta": 0.1, "train.seed": 1}) == "beta=0.1,seed=1"
    assert name_of({"method.args.alpha": 0.1, "decode.alpha": 1}) == "method.args.alpha=0.1,decode.alpha=1"
    assert name_of({"decode.collaborative": "runs/a"}) == "collaborative=runs_a"
    assert name_of({}) == ""
