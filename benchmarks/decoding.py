"""Decoding benchmark: our search against Hugging Face `generate` with a trie of dictionaries, in one run.

    python -m benchmarks.decoding [--only="books tiny counts"] [--only=...]

Both sides get the same weights, prompts and batches, in float32 on all cores, and must find the same titles with the
same scores. The other side follows the published code: every prompt is repeated for each beam before it is read, and at
each step a logits processor walks each beam's tokens through the trie and weights its children (docs/methods/igd.md,
IGD decoding). A second version of it reads every prompt once, and walks all beams at once.

A part is one measurement of a catalogue and a size of the model (`decoding_inputs`), in a process of its own:

    counts     calls of the model and tokens, of our other searches too
    speed      users per second, in batches of 16
    one        time to answer one user: requests to a warm `Recommender`, and users one by one
    memory     memory that a batch adds, with and without compilation
    bfloat16   lists that change when our model computes in bfloat16
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from absl import flags

from benchmarks import common, parts
from benchmarks.decoding_inputs import SETS, SIZES, model_of, prepared
from benchmarks.decoding_ours import Ours, choose_users, chosen_rows, counting_ours
from benchmarks.decoding_peer import Lists, Peer, Work
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.session.recommender import Recommender
from igd_jax.session.session import Session

OURS, PUBLISHED = "igd_jax", "transformers"
SEARCHES: dict[str, dict[str, Any]] = {
    OURS: {},
    "stepwise": {"search": "stepwise"},
    "on demand": {"budget": 0},
    "budget 64": {"budget": 64},
}
"""Our searches: as by default, one token of each beam per call, and with given budgets (docs/decoding.md, Jumping)."""
PEERS = {PUBLISHED: False, "transformers, prompts read once": True}
TIMED = (OURS, "stepwise", *PEERS)
MODULE = "benchmarks.decoding"
BATCH, ALPHA, REPEATS, TURNS = 16, 0.2, 3, 20
USERS = {"tiny": 128, "30m": 32}
TOLERANCE = 1e-3


def check(ours: Lists, theirs: Lists) -> dict[str, Any]:
    """Agreement of both sides: the number of users with equal lists, and the largest difference of scores by rank.

    Raises:
      InputError: scores differ by more than `TOLERANCE`. Different titles are only counted, as scores may be tied.
    """
    same = sum([title for title, _ in a] == [title for title, _ in b] for a, b in zip(ours, theirs, strict=True))
    scores = [np.array([[score for _, score in user] for user in side]) for side in (ours, theirs)]
    worst = float(np.abs(scores[0] - scores[1]).max())
    if not worst <= TOLERANCE:
        raise InputError(f"scores differ by {worst:g}, more than {TOLERANCE:g}: a bug in one of the sides")
    return {"same_lists": f"{same} of {len(ours)}", "largest_score_difference": worst}


def prepare_one_batch(side: Callable[[Session], Ours | Peer], data: Path, model: Path, alpha: float) -> Any:
    """For `common.added_peak_mb`: reads the inputs; the result loads the weights and recommends one batch."""
    session = common.make_session(data, model, alpha=alpha)
    examples, groups = choose_users(session, session.settings.decode.batch_size)
    return lambda: side(session)(examples, groups)


def figures(work: Work, taken: float, *, n_users: int, n_batches: int) -> dict[str, float]:
    """Figures of a side that took `taken` seconds for all users."""
    return {"users_per_second": round(n_users / taken, 2), **work.figures(n_users=n_users, n_batches=n_batches)}


def compare(
    session: Session, *, n_users: int, repeats: int, counts: bool = False
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Check and time all sides, and count their work: figures by side, and of our search and the peer as published.

    Args:
      session: run without its weights.
      n_users: users of the test split.
      repeats: turns of all sides, of which the fastest counts; 0 = no times.
      counts: whether to count the work of our other searches, too.
    """
    examples, groups = choose_users(session, n_users)
    n = {"n_users": len(examples), "n_batches": len(groups)}
    columns: dict[str, dict[str, Any]] = {}
    sides: dict[str, Ours | Peer] = {name: Ours(session, **decode) for name, decode in SEARCHES.items()}
    lists: dict[str, Lists] = {}
    for name, side in sides.items():
        if counts or name == OURS:
            with counting_ours() as work:
                lists[name] = side(examples, groups)
            columns[name] = work.figures(**n)
    for name, strong in PEERS.items():
        sides[name] = peer = Peer(session, strong=strong)
        with peer.counting() as work:
            taken = common.seconds(
                lambda name=name, peer=peer: lists.update({name: peer(examples, groups, with_scores=True)})
            )
        share = round(sum(peer.in_processor) / taken, 2)
        columns[name] = work.figures(**n) | {"logits_processor_share_of_time": share}
    agreement = {name: check(found, lists[PUBLISHED]) for name, found in lists.items() if name != PUBLISHED}
    both: dict[str, Any] = dict(agreement.pop(OURS))
    both |= {f"{figure}_of_{name}": value for name, each in agreement.items() for figure, value in each.items()}
    timed = {name: side for name, side in sides.items() if name in TIMED} if repeats else {}
    compiled = {name: side for name, side in timed.items() if name in SEARCHES}
    first = {name: common.seconds(lambda side=side: side(examples, groups)) for name, side in compiled.items()}
    passes = {name: (lambda side=side: side(examples, groups)) for name, side in timed.items()}
    for name, least in common.interleaved(passes, repeats=repeats).items() if repeats else ():
        columns.setdefault(name, {})["users_per_second"] = round(len(examples) / least, 2)
        if name in SEARCHES:
            columns[name]["compile_seconds"] = round(first[name] - least, 1)
    if repeats:
        speed = {name: columns[name]["users_per_second"] for name in timed}
        both["users_per_second_ratio"] = round(speed[OURS] / speed[PUBLISHED], 2)
        both["users_per_second_ratio_to_stepwise"] = round(speed[OURS] / speed["stepwise"], 2)
    return columns, both


def open_session(data: str, size: str, folder: ExitStack, **changes: Any) -> Session:
    """Set up a catalogue and a model, whose folders exist as long as `folder` is open."""
    return common.make_session(
        folder.enter_context(prepared(data)), folder.enter_context(model_of(size)), alpha=ALPHA, **changes
    )


def measure(data: str, size: str, *, repeats: int) -> dict[str, Any]:
    """Work of all searches, or with repeats, the speed of `TIMED`."""
    with ExitStack() as folder:
        session = open_session(data, size, folder, batch_size=BATCH)
        columns, both = compare(session, n_users=USERS[size], repeats=repeats, counts=not repeats)
    return {"users": USERS[size], **columns, **both}


def measure_memory(data: str, size: str) -> dict[str, Any]:
    """MB that recommending one batch adds to a process, of our side also to one that finds its programs compiled."""
    sides: dict[str, Callable[[Session], Ours | Peer]] = {OURS: Ours, f"{OURS}, compiled before": Ours}
    sides |= {name: partial(Peer, strong=strong) for name, strong in PEERS.items()}
    with prepared(data) as folder, model_of(size) as model, TemporaryDirectory() as programs:
        os.environ |= {"JAX_COMPILATION_CACHE_DIR": programs, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        found = {
            name: common.added_peak_mb(prepare_one_batch, side, folder, model, ALPHA) for name, side in sides.items()
        }
    return {name: {"peak_memory_mb": mb} for name, mb in found.items()}


def measure_one(data: str, size: str) -> dict[str, Any]:
    """Milliseconds to answer a user who comes alone: the middle, and what one in twenty exceeds.

    Requests are titles, and answers too; the other sides are given tokens.
    """
    with ExitStack() as folder:
        session = open_session(data, size, folder, batch_size=1)
        examples, _ = choose_users(session, TURNS + 1)
        nowhere = Workdir(str(Path(folder.enter_context(TemporaryDirectory())) / "no run"))
        recommender, requests = Recommender(session, nowhere), histories(session, TURNS + 1)
        sides: dict[str, Callable[[int], Any]] = {
            "requests to a Recommender": lambda user: recommender.recommend([{"history": requests[user]}])
        }
        callers: dict[str, Ours | Peer] = {name: Ours(session, **SEARCHES[name]) for name in (OURS, "stepwise")}
        callers |= {name: Peer(session, strong=strong) for name, strong in PEERS.items()}
        for name, side in callers.items():
            sides[name] = lambda user, side=side: side(examples, [np.array([user])])
        return {name: milliseconds(side, len(examples)) for name, side in sides.items()}


def histories(session: Session, n_users: int) -> list[list[str]]:
    """Titles of the histories of the users of `choose_users`."""
    rows = session.rows("test").take(chosen_rows(session, n_users))
    titles = session.decode_index.titles
    return [[titles[item] for item in rows.history[row]] for row in range(len(rows))]


def milliseconds(answer: Callable[[int], Any], n_users: int) -> dict[str, float]:
    """Time of each user's answer; all are answered once before, as widths of prompts differ."""
    for user in range(n_users):
        answer(user)
    taken = [1e3 * common.seconds(lambda user=user: answer(user)) for user in range(n_users)]
    low, high = np.percentile(taken, [50, 95])
    return {"ms_median": round(float(low), 1), "ms_95th": round(float(high), 1)}


def measure_bfloat16(data: str, size: str) -> dict[str, Any]:
    """Lists of our search in bfloat16 that are not those in float32."""
    with ExitStack() as folder:
        found = []
        for dtype in ("float32", "bfloat16"):
            session = open_session(data, size, folder, batch_size=BATCH, dtype=dtype)
            found.append(Ours(session)(*choose_users(session, USERS[size])))
    return changes(*found)


def changes(before: Lists, after: Lists) -> dict[str, Any]:
    """How lists differ: in order, in their sets, in their first titles, and how many of the titles are the same."""
    titles = [[[title for title, _ in user] for user in side] for side in (before, after)]
    pairs = list(zip(*titles, strict=True))
    kept = [len(set(a) & set(b)) / len(a) for a, b in pairs]
    return {
        "users": len(pairs),
        "lists_in_another_order": sum(a != b for a, b in pairs),
        "lists_of_other_titles": sum(set(a) != set(b) for a, b in pairs),
        "other_first_titles": sum(a[0] != b[0] for a, b in pairs),
        "share_of_titles_kept": round(float(np.mean(kept)), 4),
    }


PARTS = {
    f"{data} {size} {name}": parts.Part(partial(work, data, size), limit)
    for data in SETS
    for size in SIZES
    for name, work, limit in (
        ("counts", partial(measure, repeats=0), 1800),
        ("speed", partial(measure, repeats=REPEATS), 3600),
        ("one", measure_one, 1200),
        ("memory", measure_memory, 900),
        ("bfloat16", measure_bfloat16, 900),
    )
}


def main() -> None:
    """Entry point."""
    found = parts.run(MODULE, PARTS)
    if not flags.FLAGS.part:
        for name, figures in found.items():
            sides = {key: value for key, value in figures.items() if isinstance(value, dict)}
            rest = {key: value for key, value in figures.items() if key not in sides}
            print(f"{name}: {rest}\n" + (f"\n{common.markdown(sides)}\n" if sides else ""))


if __name__ == "__main__":
    parts.define_flags(PARTS, output=common.ROOT / "benchmarks" / "results" / "decoding.json")
    run_main(main)
