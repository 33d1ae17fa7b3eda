"""An integer-coded event log, and its conversion to splits of (history, next item) rows.

The rules are by default those of the Amazon preprocessing that IGD and D3 share: iterative k-core, a target after at
least one event, at most 10 items of history, and a global cut by time at 80 % and 90 % of the rows.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from operator import ne

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from igd_jax.core.errors import InputError
from igd_jax.core.lines import one_line
from igd_jax.core.ragged import Ragged, ragged_index, starts_of
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import SPLITS, Prepared, Rows

DUPLICATES = ("drop", "keep")
"""Values of ``--duplicates``."""
_CUTS = np.array([8, 9])
"""Tenths of the rows with a history at which the split by time cuts."""
_REPEAT = "repeat of an event (same user, item and time)"


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events (user, item, time) in the order of the source, which breaks ties between timestamps.

    Attributes:
      user, item: indices into `user_ids` and `item_ids`; each id has at least one event.
      timestamp: epoch seconds UTC.
      titles: title of each item; blank if the source has none.
      texts: further texts of items, as in `Prepared`.
      dropped: counts of what has been left out so far, ``{"reason: unit": count}``.
      notes: further facts to be recorded with the data.
    """

    user: Int32[np.ndarray, " events"]
    item: Int32[np.ndarray, " events"]
    timestamp: Int64[np.ndarray, " events"]
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str]
    texts: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str | int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)


def select(log: Interactions, keep: Bool[np.ndarray, " events"], *, reason: str) -> Interactions:
    """Keep some events and their users and items, in the old order; count the others under `reason`."""
    user, users = _renumber(log.user[keep], len(log.user_ids))
    item, items = _renumber(log.item[keep], len(log.item_ids))
    counts = {
        f"{reason}: events": len(log) - len(item),
        f"{reason}: users": len(log.user_ids) - len(users),
        f"{reason}: items": len(log.item_ids) - len(items),
    }
    return Interactions(
        user=user,
        item=item,
        timestamp=log.timestamp[keep],
        user_ids=[log.user_ids[code] for code in users],
        item_ids=[log.item_ids[code] for code in items],
        titles=[log.titles[code] for code in items],
        texts={name: [column[code] for code in items] for name, column in log.texts.items()},
        dropped={**log.dropped, **counts},
        notes=log.notes,
    )


def _renumber(codes: Int32[np.ndarray, " events"], total: int) -> tuple[Int32[np.ndarray, " events"], list[int]]:
    present = np.bincount(codes, minlength=total) > 0
    return (np.cumsum(present, dtype=np.int32) - 1)[codes], np.flatnonzero(present).tolist()


def keep_rated(log: Interactions, rating: Float[np.ndarray, " events"], min_rating: float | None) -> Interactions:
    """Keep the events rated `min_rating` or higher, and drop unrated ones (NaN). None keeps all events.

    Raises:
      InputError: no event is left.
    """
    if min_rating is None:
        return log
    if not (rating >= min_rating).any():
        raise InputError(f"--min_rating={min_rating:g}: none of the {len(log):,} events has a rating so high")
    is_rated = ~np.isnan(rating)
    log = select(log, is_rated, reason="no rating")
    return select(log, rating[is_rated] >= min_rating, reason=f"rating below {min_rating:g}")


def settle_repeats(log: Interactions, duplicates: str) -> Interactions:
    """Count repeated events (same user, item and second); "drop" keeps the first of each, "keep" keeps all.

    Raises:
      InputError: `duplicates` has another value.
    """
    if duplicates not in DUPLICATES:
        raise InputError(f"--duplicates={duplicates}: expected one of {', '.join(DUPLICATES)}")
    columns = (log.timestamp, log.item, log.user)
    order = np.lexsort(columns)  # stable: equal events stay in log order
    is_repeat = np.zeros(len(log), bool)
    is_repeat[order[1:]] = np.all([np.diff(column[order]) == 0 for column in columns], axis=0)
    if not is_repeat.any():
        return log
    if duplicates == "drop":
        return select(log, ~is_repeat, reason=_REPEAT)
    return replace(log, notes={**log.notes, f"{_REPEAT}, kept: events": int(is_repeat.sum())})


def drop_untitled(log: Interactions) -> Interactions:
    """Drop items with a blank title, and their events; raises `InputError` if no item is left."""
    titled = np.array([bool(title.strip()) for title in log.titles], bool)
    if titled.all():
        return log
    if not titled.any():
        raise InputError(
            f"none of the {len(titled):,} items has a title; each item needs one to be recommended by name"
        )
    return select(log, titled[log.item], reason="no title")


def on_one_line(log: Interactions) -> Interactions:
    """Turn line breaks in titles into spaces, as prompts separate titles by line breaks, and count the items."""
    titles = [one_line(title) for title in log.titles]
    if not (n_broken := sum(map(ne, titles, log.titles))):
        return log
    told = {"items with a line break in the title, now a space": n_broken}
    return replace(log, titles=titles, notes=log.notes | told)


def window(log: Interactions, *, start: int, end: int) -> Interactions:
    """Keep the events from `start` to `end`, both inclusive, in epoch seconds UTC."""
    return select(log, (start <= log.timestamp) & (log.timestamp <= end), reason="outside the time window")


def core_events(log: Interactions, k: int) -> tuple[Bool[np.ndarray, " events"], int]:
    """Mask of the events in the k-core, where every user and item has at least `k` events, and the number of rounds.

    Each round drops all users and items below `k` at once; the core does not depend on the order of removal.
    """
    left = np.arange(len(log))
    rounds = 0
    while True:
        user, item = log.user[left], log.item[left]
        enough = (np.bincount(user)[user] >= k) & (np.bincount(item)[item] >= k)
        if enough.all():
            break
        left = left[enough]
        rounds += 1
    keep = np.zeros(len(log), bool)
    keep[left] = True
    return keep, rounds


def take_core(log: Interactions, k: int) -> Interactions:
    """Keep the k-core (k = 0: everything); raises `InputError` if it is empty."""
    if k == 0:
        return log
    keep, rounds = core_events(log, k)
    if not keep.any():
        raise InputError(
            f"no item is left in the {k}-core of {len(log.user_ids):,} users and {len(log.item_ids):,} items;"
            " lower --k_core or give more events"
        )
    core = select(log, keep, reason=f"outside the {k}-core")
    return replace(core, notes={**core.notes, f"rounds to the {k}-core": rounds})


@dataclass(frozen=True, eq=False)
class Sequences:
    """Events by user, users in log order and each user's oldest first (ties in log order).

    Attributes:
      user, item, timestamp: as in `Interactions`.
      position: number of the user's events before each event.
      user_ids: as in `Interactions`.
    """

    user: Int32[np.ndarray, " events"]
    item: Int32[np.ndarray, " events"]
    timestamp: Int64[np.ndarray, " events"]
    position: Int64[np.ndarray, " events"]
    user_ids: list[str]

    def targets(self, *, min_history: int = 1) -> Int64[np.ndarray, " rows"]:
        """Events that make a row, ascending: all but a user's first; with `min_history` 0 also first ones.

        A user's only event makes no row.

        Raises:
          InputError: no user has two events.
        """
        n_events = np.bincount(self.user, minlength=len(self.user_ids))
        targets = np.flatnonzero((self.position >= min_history) & (n_events[self.user] > 1))
        if not targets.size:
            raise InputError(
                f"none of the {len(self.user_ids):,} users has two events; a row needs a history and a target"
            )
        return targets

    def rows(self, targets: Int64[np.ndarray, " rows"], *, max_history: int) -> Rows:
        """A row per target, with the up to `max_history` items before it as history."""
        lengths = np.minimum(self.position[targets], max_history)
        return Rows(
            user=np.array(self.user_ids, object)[self.user[targets]],
            history=Ragged(self.item[ragged_index(targets - lengths, lengths)], starts_of(lengths)),
            target=self.item[targets],
            timestamp=self.timestamp[targets],
        )


def in_sequence(log: Interactions) -> Sequences:
    """The events by user, each user's oldest first."""
    order = np.lexsort((log.timestamp, log.user))
    user = log.user[order]
    position = np.arange(len(user)) - starts_of(np.bincount(user))[user]
    return Sequences(user, log.item[order], log.timestamp[order], position, log.user_ids)


def split_by_time(events: Sequences, targets: Int64[np.ndarray, " rows"]) -> dict[str, Int64[np.ndarray, " part"]]:
    """Sort targets by time (ties in the given order) and cut those with a history at 80 % and 90 %.

    Targets without a history are for train alone; those after its end are left out.
    """
    order = targets[np.argsort(events.timestamp[targets], kind="stable")]
    n_before = np.cumsum(events.position[order] > 0)
    cuts = np.searchsorted(n_before, _CUTS * n_before[-1] // 10 + 1)
    train, *others = np.split(order, cuts)
    return dict(zip(SPLITS, [train, *(part[events.position[part] > 0] for part in others)], strict=True))


def split_leave_one_out(
    events: Sequences, targets: Int64[np.ndarray, " rows"]
) -> dict[str, Int64[np.ndarray, " part"]]:
    """Use each user's last target for test, the one before for valid if it has a history, and the others for train.

    Train rows may be later than other users' test rows, so future behaviour leaks into training.
    """
    user = events.user[targets]
    is_last = np.append(user[1:] != user[:-1], True)
    is_valid = ~is_last & np.append(is_last[1:], False) & (events.position[targets] > 0)
    masks = (~is_last & ~is_valid, is_valid, is_last)
    return {name: targets[mask] for name, mask in zip(SPLITS, masks, strict=True)}


SPLITTERS = {"time": split_by_time, "leave_one_out": split_leave_one_out}


def to_prepared(
    log: Interactions,
    *,
    k_core: int = 0,
    split: str = "time",
    min_history: int = 1,
    max_history: int = 10,
    max_eval_history: int | None = None,
) -> Prepared:
    """Make the rows of titled items in the k-core (0: all), and split them ("time" or "leave_one_out").

    Titles are put on one line each.

    Args:
      min_history: 1; or 0, with which a user's first event is a row of train, too, without a history.
      max_history: number of most recent history items per row.
      max_eval_history: the same for valid and test; 0 = all; None = `max_history`.

    Raises:
      InputError: the split is unknown, no titled item or no core is left, or a split would be empty.
    """
    if split not in SPLITTERS:
        raise InputError(f"there is no split {split!r}; choose one of {', '.join(SPLITTERS)}")
    log = on_one_line(take_core(drop_untitled(log), k_core))
    events = in_sequence(log)
    parts = SPLITTERS[split](events, events.targets(min_history=min_history))
    splits, dropped = dict[str, Rows](), Counter[str](log.dropped)
    dropped["first of its user, so without history: events"] += len(log) - sum(map(len, parts.values()))
    for name, targets in parts.items():
        limit = max_history if name == "train" or max_eval_history is None else max_eval_history
        limit = limit or len(log)
        splits[name] = events.rows(targets, max_history=limit)
        dropped[f"history cut to the last {limit}: rows"] += int((events.position[targets] > limit).sum())
    return assemble(
        item_ids=log.item_ids,
        titles=log.titles,
        texts=log.texts,
        splits=splits,
        dropped=dict(dropped),
        notes=log.notes,
    )
