"""The vectorised event log against plain loops over events, and the edges of its rules."""

import dataclasses

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import (
    Interactions,
    drop_untitled,
    in_sequence,
    select,
    split_by_time,
    split_leave_one_out,
    take_core,
    to_prepared,
    window,
)


def make_log(events, titles=None):
    """A log from (user, item, timestamp) with string ids, coded in order of first appearance."""
    users = list(dict.fromkeys(user for user, _, _ in events))
    items = list(dict.fromkeys(item for _, item, _ in events))
    return Interactions(
        user=np.array([users.index(user) for user, _, _ in events], np.int32),
        item=np.array([items.index(item) for _, item, _ in events], np.int32),
        timestamp=np.array([time for _, _, time in events], np.int64),
        user_ids=users,
        item_ids=items,
        titles=[(titles or {}).get(item, f"Title {item}") for item in items],
    )


def random_events(seed, n=300, n_users=25, n_items=20, n_times=40):
    rng = np.random.default_rng(seed)
    columns = rng.integers(n_users, size=n), rng.zipf(1.5, n) % n_items, rng.integers(n_times, size=n)
    return [(f"u{user}", f"i{item}", int(time)) for user, item, time in zip(*columns, strict=True)]


def events_of(log):
    columns = log.user.tolist(), log.item.tolist(), log.timestamp.tolist()
    return [(log.user_ids[user], log.item_ids[item], time) for user, item, time in zip(*columns, strict=True)]


def rows_of(rows, item_ids):
    """Rows as (user, history ids, target id, timestamp)."""
    return [
        (rows.user[r], [item_ids[i] for i in rows.history[r]], item_ids[rows.target[r]], int(rows.timestamp[r]))
        for r in range(len(rows))
    ]


def rows_and_splits(log, splitter=split_by_time, *, min_history=1, max_history=10):
    """All rows, and those of each split."""
    events = in_sequence(log)
    targets = events.targets(min_history=min_history)
    parts = {"all": targets, **splitter(events, targets)}
    rows, *splits = (rows_of(events.rows(part, max_history=max_history), log.item_ids) for part in parts.values())
    return rows, dict(zip([*parts][1:], splits, strict=True))


def loop_core(events, k):
    """The k-core, one user or item at a time."""
    while True:
        for column in (0, 1):
            counts = {}
            for event in events:
                counts[event[column]] = counts.get(event[column], 0) + 1
            poor = [one for one, count in counts.items() if count < k]
            if poor:
                events = [event for event in events if event[column] != poor[0]]
                break
        else:
            return events


def loop_rows(events, max_history):
    """Rows user by user, each user's events in a stable order of time."""
    rows = []
    for user in dict.fromkeys(event[0] for event in events):
        own = sorted((event for event in events if event[0] == user), key=lambda event: event[2])
        for i in range(1, len(own)):
            rows.append((user, [item for _, item, _ in own[max(0, i - max_history) : i]], own[i][1], own[i][2]))
    return rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 5])
def test_core_equals_dropping_one_user_or_item_at_a_time(seed, k):
    events = random_events(seed)
    assert events_of(take_core(make_log(events), k)) == loop_core(events, k)


def test_core_counts_what_it_drops_and_its_rounds():
    # c has one event; without it i2 has one, and without that b has one: three rounds.
    events = [("a", "i1", 1), ("a", "i1", 2), ("b", "i1", 3), ("b", "i2", 4), ("c", "i2", 5)]
    core = take_core(make_log(events), 2)
    assert events_of(core) == [("a", "i1", 1), ("a", "i1", 2)]
    assert core.dropped == {
        "outside the 2-core: events": 3,
        "outside the 2-core: users": 2,
        "outside the 2-core: items": 1,
    }
    assert core.notes == {"rounds to the 2-core": 3}


def test_core_of_zero_keeps_everything():
    log = make_log(random_events(0))
    assert take_core(log, 0) is log


def test_empty_core_is_an_input_error():
    with pytest.raises(InputError, match="no item is left in the 9-core"):
        take_core(make_log([("a", "i", 1), ("b", "j", 2)]), 9)


def test_window_takes_both_bounds():
    log = make_log([("a", "i", time) for time in (9, 10, 15, 20, 21)])
    assert window(log, start=10, end=20).timestamp.tolist() == [10, 15, 20]


def test_select_renumbers_in_the_old_order():
    log = make_log([("a", "i", 1), ("b", "j", 2), ("c", "k", 3), ("b", "k", 4)])
    kept = select(log, np.array([False, True, False, True]), reason="why")
    assert (kept.user_ids, kept.item_ids, kept.titles) == (["b"], ["j", "k"], ["Title j", "Title k"])
    assert (kept.user.tolist(), kept.item.tolist()) == ([0, 0], [0, 1])
    assert kept.dropped == {"why: events": 2, "why: users": 2, "why: items": 1}


@pytest.mark.parametrize("blank", ["", "   ", "\t\n"])
def test_untitled_items_go_with_their_events(blank):
    log = drop_untitled(make_log([("a", "i", 1), ("a", "j", 2), ("b", "j", 3)], titles={"j": blank}))
    assert events_of(log) == [("a", "i", 1)]
    assert log.dropped == {"no title: events": 2, "no title: users": 1, "no title: items": 1}


def test_no_titled_item_is_an_input_error():
    with pytest.raises(InputError, match="none of the 2 items has a title"):
        drop_untitled(make_log([("a", "i", 1), ("a", "j", 2)], titles={"i": "", "j": " "}))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_history", [1, 3, 10])
def test_rows_equal_those_of_a_loop_over_users(seed, max_history):
    events = random_events(seed)
    rows, splits = rows_and_splits(make_log(events), max_history=max_history)
    expected, whole = (loop_rows(events, limit) for limit in (max_history, 1000))
    assert rows == expected
    meta = to_prepared(make_log(events), max_history=max_history).meta
    assert meta["rows"] == {name: len(split) for name, split in splits.items()}
    assert meta["dropped"]["first of its user, so without history: events"] == len(events) - len(expected)
    n_cut = sum(a != b for a, b in zip(expected, whole, strict=True))
    assert meta["dropped"].get(f"history cut to the last {max_history}: rows", 0) == n_cut


def test_users_with_one_event_give_no_row():
    for min_history in (0, 1):
        with pytest.raises(InputError, match="none of the 2 users has two events"):
            in_sequence(make_log([("a", "i", 1), ("b", "i", 2)])).targets(min_history=min_history)


def test_time_split_sorts_all_rows_and_cuts_them():
    rows, splits = rows_and_splits(make_log(random_events(1)))
    n = len(rows)
    joined = [row for split in splits.values() for row in split]
    assert joined == sorted(rows, key=lambda row: row[3])  # sorted() is stable
    assert [len(split) for split in splits.values()] == [n * 8 // 10, n * 9 // 10 - n * 8 // 10, n - n * 9 // 10]
    assert list(splits) == ["train", "valid", "test"]


def test_leave_one_out_takes_each_users_last_two_rows():
    events = [(user, f"i{i}", i) for user, n in (("a", 4), ("b", 2), ("c", 3), ("d", 6)) for i in range(n)]
    rows, splits = rows_and_splits(make_log(events), split_leave_one_out)
    by_user = {user: [row for row in rows if row[0] == user] for user in "abcd"}
    assert splits["test"] == [by_user[user][-1] for user in "abcd"]
    assert splits["valid"] == [by_user[user][-2] for user in "acd"]
    assert splits["train"] == [row for user in "abcd" for row in by_user[user][:-2]]


# -------------------------------------------------------------------------------------- histories of length 0, or uncut
@pytest.mark.parametrize("splitter", [split_by_time, split_leave_one_out])
def test_first_events_are_rows_of_train_alone_and_change_no_other_split(splitter):
    log = make_log(random_events(2))
    _, usual = rows_and_splits(log, splitter)
    _, found = rows_and_splits(log, splitter, min_history=0)
    assert (found["valid"], found["test"]) == (usual["valid"], usual["test"])
    first = [row for row in found["train"] if not row[1]]
    assert [row for row in found["train"] if row[1]] == usual["train"]
    earliest = {row[0]: row for row in rows_and_splits(log, splitter, min_history=0)[0] if not row[1]}
    assert len(first) > 5
    assert all(row == earliest[row[0]] for row in first)
    end = usual["valid"][0][3]
    left_out = [row for row in earliest.values() if row not in first]
    assert all(row[3] >= end for row in left_out) if splitter is split_by_time else not left_out


def test_a_first_event_that_is_no_row_of_train_is_counted():
    events = [("a", f"i{i}", i) for i in range(11)] + [("b", "i1", 15), ("b", "i2", 20), ("c", "i3", 3), ("d", "i1", 1)]
    log = make_log([*events, ("d", "i2", 30)])
    found = to_prepared(log, min_history=0)
    assert found.splits["train"].history[0].tolist() == []
    left_out = found.meta["dropped"]["first of its user, so without history: events"]
    assert left_out == 2  # of b, later than train, and of c, who has no other
    assert (found.splits["test"].history.lengths > 0).all()


def test_histories_of_valid_and_test_may_be_longer_or_whole():
    log = make_log([("a", f"i{i}", i) for i in range(31)])
    for given, longest in ((None, 5), (20, 20), (0, 30)):
        found = to_prepared(log, max_history=5, max_eval_history=given)
        lengths = {name: int(rows.history.lengths.max()) for name, rows in found.splits.items()}
        assert (lengths["train"], lengths["test"]) == (5, longest)
        assert found.meta["dropped"]["history cut to the last 5: rows"] == (19 if given is not None else 25)


def test_only_leave_one_out_leaks_the_future_and_says_so():
    log = make_log([(user, f"i{i}", i + start) for user, start in (("a", 0), ("b", 100)) for i in range(10)])
    assert to_prepared(log).meta["train_rows_after_first_test_row"] == 0
    # user a's test row is at time 9, and all seven train rows of user b are later
    assert to_prepared(log, split="leave_one_out").meta["train_rows_after_first_test_row"] == 7


def test_prepared_drops_untitled_items_before_the_core():
    # Without j, user b has one event left and leaves the 2-core.
    events = [("a", "i", 1), ("a", "i", 2), ("b", "i", 3), ("b", "j", 4), ("c", "j", 5)] + [("a", "i", 6)] * 10
    prepared = to_prepared(make_log(events, titles={"j": ""}), k_core=2)
    assert prepared.item_ids == ["i"]
    assert prepared.meta["users"] == 1
    assert prepared.meta["dropped"]["no title: events"] == 2
    assert prepared.meta["dropped"]["outside the 2-core: events"] == 1


def test_a_title_stands_on_one_line():
    titles = {"i": "Red \r\n\t Fox  2", "j": "Red  Fox\t2 ", "k": "\nHens\n\n"}
    prepared = to_prepared(make_log([("a", item, time) for time, item in enumerate("ijkikikikikik")], titles))
    assert prepared.titles == ["Red Fox  2", "Red  Fox\t2 ", "Hens"]
    assert prepared.meta["notes"] == {"items with a line break in the title, now a space": 2}


def test_unknown_split_is_an_input_error():
    with pytest.raises(InputError, match="no split 'random'; choose one of time, leave_one_out"):
        to_prepared(make_log(random_events(0)), split="random")


def test_empty_split_is_an_input_error():
    with pytest.raises(InputError, match="train 1, valid 0, test 1"):
        to_prepared(make_log([("a", "i", 1), ("a", "j", 2), ("a", "k", 3)]))


def test_what_was_dropped_before_a_split_became_empty_is_told():
    few = [("a", item, time) for time, item in enumerate("iijjkxxy")] + [("b", "z", 9)]
    log = make_log(few, titles=dict.fromkeys("xyz", ""))
    with pytest.raises(InputError) as caught:
        to_prepared(dataclasses.replace(log, dropped={"no user: events": 0, "a, renamed: items": 3}), k_core=2)
    assert str(caught.value) == (
        "every split needs at least one row, but there are train 2, valid 0, test 1 (dropped before: no title: events "
        "4, outside the 2-core: events 1, first of its user, so without history: events 1); give more events or filter "
        "less"
    )
    long = {f"{'reason' * 9} {n}: events": 10**9 for n in range(20)}
    with pytest.raises(InputError, match="give more events or filter less") as caught:
        to_prepared(dataclasses.replace(log, dropped=long), k_core=2)
    assert len(str(caught.value)) < 480


def test_rows_whose_target_ends_their_history_are_counted_and_kept():
    log = make_log([("a", item, time) for time, item in enumerate("ijjkkkjkjkjkj")])
    for min_history in (0, 1):  # an empty history ends in no item
        prepared = to_prepared(log, min_history=min_history)
        assert prepared.meta["notes"] == {"rows whose target is the last item of their history": 3}
        assert sum(prepared.meta["rows"].values()) == 13 - min_history


def test_texts_follow_their_items_into_the_prepared_data():
    events = [("a", item, time) for time, item in enumerate("ijkikikikikik")]
    log = dataclasses.replace(make_log(events, titles={"j": ""}), texts={"brand": ["I", "J", ""]})
    prepared = to_prepared(log)
    assert (prepared.item_ids, prepared.texts) == (["i", "k"], {"brand": ["I", ""]})
    assert prepared.meta["items_with_text"] == {"brand": 1}
