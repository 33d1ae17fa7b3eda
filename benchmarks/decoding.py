"""Decoding benchmark: our search against Hugging Face `generate` with a trie of dictionaries, in one run.

    python -m benchmarks.decoding [--users=64] [--alpha=0.2] [--data=FOLDER] [--model=HF_FOLDER]

Both sides get the same weights, prompts and batches, in float32 on all cores, and must find the same titles with the
same scores. The other side follows the published code: every prompt is repeated for each beam before it is read, and at
each step a logits processor walks each beam's tokens through the trie and weights its children (docs/methods.md, IGD
decoding).
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import flags
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from benchmarks import common
from benchmarks.common import Node
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.map_rows import in_groups
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import by_length, make_item_batch, make_text_batch, prompt_room
from igd_jax.data.examples import Examples
from igd_jax.decoding.engine import recommend
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Visibility, mask_of
from igd_jax.session.recommender import decode_options
from igd_jax.session.session import Session

REPEATS = 3
TOLERANCE = 1e-3

Lists: TypeAlias = list[list[tuple[tuple[int, ...], float]]]
"""Tokens (none if cut before the end) and score of each title, best first, for each user."""
Groups: TypeAlias = Sequence[np.ndarray]
"""Row numbers of each batch."""


class Work:
    """Work of one side's model.

    Attributes:
      calls: number of tokens of each sequential call, with and without padding. Pairs are appended, as the device may
        report two calls at once.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def add(self, tokens: int, real: int) -> None:
        self.calls.append((int(tokens), int(real)))

    def figures(self, *, n_users: int, n_batches: int) -> dict[str, float]:
        """Calls per batch and tokens per user."""
        tokens, real = (sum(column) for column in zip(*self.calls, strict=True))
        return {
            "sequential_model_calls_per_batch": round(len(self.calls) / n_batches, 1),
            "tokens_through_the_model_per_user": round(tokens / n_users),
            "of_them_no_padding": round(real / n_users),
        }


class Ours:
    """The method's own engine, compiled once per batch shape.

    Attributes:
      session: run without its weights.
      index: items, with the candidates of decoding.
      model: untrained backbone, of a folder or with random weights.
      engine: engine of the method.
    """

    def __init__(self, session: Session):
        context = session.context(session.decode_index())
        self.session, self.index, self.model = session, context.index, session.method.make_model(context)
        options = decode_options(session.settings.decode, self.index)
        self.engine = session.method.engine(context, self.model, options)

    def __call__(self, examples: Examples, groups: Groups) -> Lists:
        lists: Lists = []
        for group in groups:
            batch = self.batch(examples, group)
            found = jax.device_get(recommend(self.engine, batch, width=prompt_room(examples)))
            pairs = zip(found.rows[: len(group)].tolist(), found.scores[: len(group)].tolist(), strict=True)
            lists += [[(self.title(row), score) for row, score in zip(*user, strict=True)] for user in pairs]
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


class GainProcessor(LogitsProcessor):
    """Scales the scores of each beam's legal next tokens by their gain among siblings, and forbids all others."""

    def __init__(self, root: Node, *, prompt_width: int, alpha: float, spent: list[float]):
        self._root, self._prompt_width, self._alpha, self._spent = root, prompt_width, alpha, spent

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        weight = torch.full_like(scores, math.inf)
        for beam, tokens in enumerate(input_ids[:, self._prompt_width :].tolist()):
            node: Node | None = self._root
            for token in tokens:
                node = node.children.get(token) if node else None
            if node and node.children:
                weights = self._weights(node)
                weight[beam, list(weights)] = torch.tensor(list(weights.values()), device=scores.device)
        scores = (scores - 1e-7) * weight
        self._spent.append(time.perf_counter() - start)
        return scores

    def _weights(self, node: Node) -> dict[int, float]:
        gain = {token: node.entropy - child.entropy for token, child in node.children.items()}
        low, high = min(gain.values()), max(gain.values())
        if high <= low:
            return dict.fromkeys(gain, 1.0)
        return {token: 1.0 - self._alpha * (g - low) / (high - low + 1e-7) for token, g in gain.items()}


class Peer:
    """Beam search of transformers; `in_processor` holds the time of each call of its logits processor in seconds.

    Args:
      session: run without its weights.
      model: model on its device; None = with the weights of the session, in float32 on the CPU.
    """

    def __init__(self, session: Session, model: PreTrainedModel | None = None):
        decode, self._eos = session.settings.decode, session.tokenizer.eos
        self.in_processor: list[float] = []
        self._root, self._alpha = common.build_dict_trie(session.decode_index()), decode.alpha
        self._k, self._model = decode.num_beams, (model or common.torch_model(session)).eval()
        self._options = GenerationConfig(
            num_beams=self._k,
            num_return_sequences=self._k,
            max_new_tokens=decode.max_new_tokens or session.decode_index().longest,
            length_penalty=decode.length_penalty,
            do_sample=False,
            early_stopping=False,
            eos_token_id=self._eos,
            pad_token_id=self._eos,
            return_dict_in_generate=True,
        )

    def __call__(self, examples: Examples, groups: Groups, *, with_scores: bool = False) -> Lists:
        return [user for group in groups for user in self._search(examples, group, with_scores)]

    def _search(self, examples: Examples, group: np.ndarray, with_scores: bool) -> Lists:
        prompts = [torch.from_numpy(examples.prompt[row]).long() for row in group.tolist()]
        width = max(map(len, prompts))
        ids, mask = torch.full((len(prompts), width), self._eos), torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        processor = GainProcessor(self._root, prompt_width=width, alpha=self._alpha, spent=self.in_processor)
        self._options.output_scores = with_scores
        out = self._model.generate(
            ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=self._options,
            logits_processor=LogitsProcessorList([processor]),
        )
        titles = [self._title(tokens) for tokens in out.sequences[:, width:].tolist()]
        scores = out.sequences_scores.tolist() if with_scores else [math.nan] * len(titles)
        pairs = list(zip(titles, scores, strict=True))
        return [pairs[first : first + self._k] for first in range(0, len(pairs), self._k)]

    def _title(self, tokens: list[int]) -> tuple[int, ...]:
        return tuple(tokens[: tokens.index(self._eos) + 1]) if self._eos in tokens else ()

    @contextmanager
    def counting(self) -> Iterator[Work]:
        """Count the model calls within the block."""
        work = Work()

        def count(_: torch.nn.Module, __: tuple, given: dict[str, Any]) -> None:
            ids, mask = given["input_ids"], given["attention_mask"]
            work.add(ids.numel(), int(mask[:, -ids.shape[1] :].sum()))

        hook = self._model.register_forward_pre_hook(count, with_kwargs=True)
        yield work
        hook.remove()


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


def compare(session: Session, *, n_users: int, repeats: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Check and time both sides, and count their work: figures of ours, of the other, and of both."""
    examples, groups = choose_users(session, n_users)
    ours, peer = Ours(session), Peer(session)
    with counting_ours() as our_work:
        ours(examples, groups)
    lists: list[Lists] = []
    first_pass = common.seconds(lambda: lists.append(ours(examples, groups)))
    with peer.counting() as their_work:
        their_pass = common.seconds(lambda: lists.append(peer(examples, groups, with_scores=True)))
    in_processor = round(sum(peer.in_processor) / their_pass, 2)
    agreement = check(*lists)
    passes = {"ours": lambda: ours(examples, groups), "peer": lambda: peer(examples, groups)}
    least = common.interleaved(passes, repeats=repeats)
    our_extra = {"compile_seconds": round(first_pass - least["ours"], 1)}
    their_extra = {"logits_processor_share_of_time": in_processor}
    our_side, their_side = (
        figures(work, least[name], n_users=len(examples), n_batches=len(groups))
        for name, work in (("ours", our_work), ("peer", their_work))
    )
    both = {"users_per_second_ratio": round(least["peer"] / least["ours"], 2), **agreement}
    return our_side | our_extra, their_side | their_extra, both


def main() -> None:
    """Entry point."""
    values = flags.FLAGS
    model = Path(values.model)
    with common.prepared_folder(values.data) as data:
        session = common.make_session(data, model, alpha=values.alpha)
        ours, peer, both = compare(session, n_users=values.users, repeats=REPEATS)
        for side, column in ((Ours, ours), (Peer, peer)):
            column["peak_memory_mb"] = common.added_peak_mb(prepare_one_batch, side, data, model, values.alpha)
    settings = {
        "data": f"{Path(values.data).name} test",
        "model": model.name,
        "users": values.users,
        **{
            field: getattr(session.settings.decode, field)
            for field in ("batch_size", "num_beams", "alpha", "max_new_tokens")
        },
    }
    common.report("decoding", settings, {"igd_jax": ours, "transformers": peer}, **both)


if __name__ == "__main__":
    common.define_flags()
    flags.DEFINE_integer("users", 64, "Users to recommend for, from the test split.", lower_bound=1)
    flags.DEFINE_float("alpha", 0.2, "Discount of high-gain tokens.")
    run_main(main)
