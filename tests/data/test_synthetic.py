"""The invented shop has the structure that makes it worth learning from, shown by baselines that only count."""

import re
from collections import Counter

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import to_prepared
from igd_jax.data.sources import synthetic

TITLE = re.compile(r"(The .+), (?:Volume|Book|Part|Course|Set) (\d+): The \w+ \w+ (.+)")


@pytest.fixture(scope="module", params=[0, 1, 2])
def prepared(request):
    return to_prepared(synthetic.read(None, seed=request.param))


def train_counts(prepared):
    return np.bincount(prepared.splits["train"].target, minlength=len(prepared.titles))


def hit_rate(rows, candidates_of):
    return np.mean([rows.target[r] in candidates_of(rows.history[r])[:10] for r in range(len(rows))])


def test_size_is_as_announced(prepared):
    assert prepared.meta["users"] == 600
    assert 290 <= prepared.meta["items"] <= 300
    assert sum(prepared.meta["rows"].values()) == 8000 - 600
    assert [date[:4] for date in prepared.meta["dates"]] == ["2024", "2024"]
    assert len(set(prepared.titles)) == len(prepared.titles)


def test_popularity_alone_hits_little(prepared):
    popular = np.argsort(-train_counts(prepared), kind="stable")
    assert 0.05 < hit_rate(prepared.splits["test"], lambda _: popular) < 0.15


def test_the_series_of_the_last_item_hits_often(prepared):
    named = [TITLE.fullmatch(title).groups() for title in prepared.titles]
    item_of = {name: item for item, name in enumerate(named)}

    def next_volume_then_series(history):
        series, part, version = named[history[-1]]
        following = item_of.get((series, str(int(part) + 1), version))
        others = [item for item, name in enumerate(named) if name[0] == series and item != following]
        return others if following is None else [following, *others]

    assert hit_rate(prepared.splits["test"], next_volume_then_series) > 0.4


def test_train_pairs_predict_test_rows(prepared):
    train = prepared.splits["train"]
    after = {}
    for row in range(len(train)):
        after.setdefault(train.history[row][-1], Counter())[train.target[row]] += 1

    def followers(history):
        return [item for item, _ in after.get(history[-1], Counter()).most_common(10)]

    assert hit_rate(prepared.splits["test"], followers) > 0.4


def test_most_words_of_the_targets_are_forced(prepared):
    paths = [(*title.split(" "), "end") for title in prepared.titles]
    children = {}
    for path in paths:
        for i, word in enumerate(path):
            children.setdefault(path[:i], set()).add(word)
    forced = np.array([sum(len(children[path[:i]]) == 1 for i in range(len(path))) for path in paths])
    counts = train_counts(prepared)
    share = (counts * forced).sum() / (counts * [len(path) for path in paths]).sum()
    assert 0.5 < share < 0.9


def test_titles_share_beginnings_and_endings(prepared):
    beginnings = Counter(" ".join(title.split(" ")[:3]) for title in prepared.titles)
    endings = Counter(" ".join(title.split(" ")[-3:]) for title in prepared.titles)
    assert min(beginnings.most_common(20)[-1][1], endings.most_common(10)[-1][1]) >= 5


def test_some_items_are_rare_and_some_are_well_known(prepared):
    counts = train_counts(prepared)
    assert counts.min() <= 3
    assert counts.max() > 4 * counts.mean()


def test_seed_decides_everything():
    first, again, other = (to_prepared(synthetic.read(None, n_events=2000, seed=seed)) for seed in (5, 5, 6))
    assert first.meta == again.meta
    assert first.meta["fingerprint"] != other.meta["fingerprint"]


@pytest.mark.parametrize(("n_items", "n_users", "n_events"), [(1, 1, 20), (10, 30, 60), (1000, 50, 3000)])
def test_any_size_can_be_asked_for(n_items, n_users, n_events):
    log = synthetic.read(None, n_items=n_items, n_users=n_users, n_events=n_events)
    assert len(log) == n_events
    assert len(log.user_ids) == n_users
    assert len(log.item_ids) == n_items - log.dropped["never taken: items"]
    assert np.bincount(log.user).min() >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_events": 1199}, "1,199 events are too few for 600 users"),
        ({"n_users": 0}, "too few for 0 users"),
        ({"n_items": 0}, "a shop of 0 items"),
        ({"n_items": 10**6}, "names for .* items only"),
    ],
)
def test_impossible_sizes_are_input_errors(options, message):
    with pytest.raises(InputError, match=message):
        synthetic.read(None, **options)


def test_an_input_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="reads no input"):
        synthetic.read(tmp_path)
