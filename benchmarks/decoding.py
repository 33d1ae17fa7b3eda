"""Decoding benchmark: our search against Hugging Face `generate` with a trie of dictionaries, in one run.

    python -m benchmarks.decoding [--users=64] [--batch=16] [--alpha=0.2] [--data=FOLDER] [--model=HF_FOLDER]
                                  [--parts=counts] [--parts=speed] [--parts=memory] [--record=NAME]

Both sides get the same weights, prompts and batches, in float32 on all cores, and must find the same titles with the
same scores. The other side follows the published code: every prompt is repeated for each beam before it is read, and at
each step a logits processor walks each beam's tokens through the trie and weights its children (docs/methods.md, IGD
decoding). A second version of it reads every prompt once, and walks all beams at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common
from benchmarks.decoding_peer import Groups, Lists, Peer, Work
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.map_rows import in_groups
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import by_length, make_item_batch, make_text_batch, prompt_room
from igd_jax.data.examples import Examples
from igd_jax.decoding.queue import recommend_all
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Visibility, mask_of
from igd_jax.session.ranker import decode_options
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
PARTS = ["counts", "speed", "memory"]
REPEATS = 3
TOLERANCE = 1e-3


class Ours:
    """The method's own engine, compiled once per batch shape.

    Args:
      session: run without its weights.
      decode: changes of `DecodeOptions`, such as ``search`` and ``budget``.

    Attributes:
      session: run without its weights.
      index: items, with the candidates of decoding.
      model: untrained backbone, of a folder or with random weights.
      engine: engine of the method.
    """

    def __init__(self, session: Session, **decode: Any):
        context = session.context(session.decode_index())
        self.session, self.index, self.model = session, context.index, session.method.make_model(context)
        options = replace(decode_options(session.settings.decode, self.index), **decode)
        self.engine = session.method.engine(context, self.model, options)

    def __call__(self, examples: Examples, groups: Groups) -> Lists:
        batches = ((len(group), self.batch(examples, group)) for group in groups)
        lists: Lists = [[]] * sum(map(len, groups))
        size = self.session.settings.decode.batch_size
        for places, found in recommend_all(self.engine, batches, width=prompt_room(examples)):
            batch, row = np.divmod(places, size)
            starts = np.cumsum([0, *(len(group) for group in groups)])[batch]
            for at, *user in zip((starts + row).tolist(), found.rows.tolist(), found.scores.tolist(), strict=True):
                lists[at] = [(self.title(title), score) for title, score in zip(*user, strict=True)]
        return lists

    def batch(self, examples: Examples, group: np.ndarray) -> TextBatch | ItemBatch:
        """Batch of some users in the form that the method reads."""
        size = self.session.settings.decode.batch_size
        if self.session.method.inputs == "items":
            return make_item_batch(examples, group, size=size)
        return make_text_batch(examples, group, self.index.item_tokens, {}, size=size)

    def title(self, row: int) -> tuple[int, ...]:
        """Tokens of a catalogue row; none for row -1."""
        return tuple(self.index.catalog.tokens[row].tolist()) if row >= 0 else ()


@contextmanager
def counting_ours() -> Iterator[Work]:
    """Count the model calls inside the block; all programs are retraced inside it and after it."""
    work, plain = Work(), Decoder.__call__

    def counted(model: Decoder, inputs: jax.Array, *, visible: Visibility, **others: Any) -> Any:
        real = jnp.diagonal(mask_of(visible), axis1=1, axis2=2).sum()  # padding does not see itself
        jax.debug.callback(partial(work.add, inputs.shape[0] * inputs.shape[1]), real)
        return plain(model, inputs, visible=visible, **others)

    jax.clear_caches()
    with mock.patch.object(Decoder, "__call__", counted):
        yield work
        jax.effects_barrier()
    jax.clear_caches()


def choose_users(session: Session, n_users: int) -> tuple[Examples, Groups]:
    """Random rows of the test split, and their batches for both sides."""
    rows = session.rows("test")
    chosen = np.random.default_rng(0).choice(len(rows), min(n_users, len(rows)), replace=False)
    examples = session.examples(rows.take(np.sort(chosen)))
    return examples, list(in_groups(by_length(examples, np.arange(len(examples))), session.settings.decode.batch_size))


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


def prepare_one_batch(side: type[Ours] | type[Peer], data: Path, model: Path, alpha: float) -> Any:
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
    first = {name: common.seconds(lambda side=side: side(examples, groups)) for name, side in timed.items()}
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


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    model = Path(values.model)
    with common.prepared_folder(values.data) as data:
        session = common.make_session(data, model, alpha=values.alpha, batch_size=values.batch)
        repeats = REPEATS if "speed" in values.parts else 0
        columns, both = compare(session, n_users=values.users, repeats=repeats, counts="counts" in values.parts)
        if "memory" in values.parts:
            for name, side in ((OURS, Ours), (PUBLISHED, Peer)):
                columns[name]["peak_memory_mb"] = common.added_peak_mb(
                    prepare_one_batch, side, data, model, values.alpha
                )
    settings = {
        "data": f"{Path(values.data).name} test",
        "model": model.name,
        "users": values.users,
        **{
            field: getattr(session.settings.decode, field)
            for field in ("batch_size", "num_beams", "alpha", "max_new_tokens")
        },
    }
    common.report(values.record, settings, columns, **both)


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_integer("users", 64, "Users to recommend for, from the test split.", lower_bound=1)
    flags.DEFINE_integer("batch", 16, "Users at a time.", lower_bound=1)
    flags.DEFINE_float("alpha", 0.2, "Discount of high-gain tokens.")
    flags.DEFINE_multi_enum("parts", PARTS, PARTS, "What is measured.")
    flags.DEFINE_string("record", "decoding", "Name of the file of results.")
    run_main(main)
