"""The other side of the decoding benchmark: `generate` of transformers, as published, and with its waste removed."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from benchmarks import common
from benchmarks.common import Node
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples
from igd_jax.items.index import ItemIndex
from igd_jax.session.session import Session

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


class VectorProcessor(LogitsProcessor):
    """`GainProcessor` without a loop over beams: walks all of them at once, in the arrays of `items.trie`."""

    def __init__(self, index: ItemIndex, *, prompt_width: int, alpha: float, spent: list[float]):
        self._trie, self._factor = index.trie, index.gain.factor
        self._prompt_width, self._alpha, self._spent = prompt_width, alpha, spent

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        trie, written = self._trie, input_ids[:, self._prompt_width :].cpu().numpy()
        n_beams, n_tokens = written.shape
        node = np.zeros(n_beams, np.int32)
        if n_tokens:
            node = trie.walk(Ragged(written.ravel(), np.arange(n_beams + 1) * n_tokens))[0][n_tokens - 1 :: n_tokens]
        at = np.minimum(np.searchsorted(trie.branch, node), len(trie.branch) - 1)
        is_branch = trie.branch[at] == node
        count = np.where(is_branch, trie.n_children[at], 0)
        beam = np.repeat(np.arange(n_beams), count)
        edge = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + trie.child_start[at][beam]
        forced = np.flatnonzero(~is_branch & (node >= 0) & ~np.isin(node, trie.leaf))
        beam, child = np.append(beam, forced), np.append(trie.child[edge], node[forced] + 1)
        weight = np.append(1 - self._alpha * self._factor[edge], np.ones(len(forced)))
        place = [torch.from_numpy(each).to(scores.device) for each in (beam, trie.token[child].astype(np.int64))]
        new = torch.full_like(scores, -math.inf)
        new[*place] = (scores[*place] - 1e-7) * torch.from_numpy(weight).to(scores)
        self._spent.append(time.perf_counter() - start)
        return new


class Peer:
    """Beam search of transformers.

    Args:
      session: run without its weights.
      model: model on its device; None = with the weights of the session, in float32 on the CPU.
      strong: whether prompts are read once, and not once per beam, and the processor has no loop over beams.

    Attributes:
      in_processor: time of each call of the logits processor in seconds.
    """

    def __init__(self, session: Session, model: PreTrainedModel | None = None, *, strong: bool = False):
        decode, self._eos = session.settings.decode, session.tokenizer.eos
        self.in_processor: list[float] = []
        self._index, self._strong = session.decode_index, strong
        self._root, self._alpha = common.build_dict_trie(self._index), decode.alpha
        self._k, self._model = decode.num_beams, (model or common.torch_model(session)).eval()
        self._options = GenerationConfig(
            num_beams=self._k,
            num_return_sequences=self._k,
            max_new_tokens=decode.max_new_tokens or self._index.longest,
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
        known = {"prompt_width": width, "alpha": self._alpha, "spent": self.in_processor}
        processor = VectorProcessor(self._index, **known) if self._strong else GainProcessor(self._root, **known)
        past = {"cache": self._read_once(ids, mask)} if self._strong else {}
        self._options.output_scores = with_scores
        out = self._model.generate(
            ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=self._options,
            logits_processor=LogitsProcessorList([processor]),
            **past,
        )
        titles = [self._title(tokens) for tokens in out.sequences[:, width:].tolist()]
        scores = out.sequences_scores.tolist() if with_scores else [math.nan] * len(titles)
        pairs = list(zip(titles, scores, strict=True))
        return [pairs[first : first + self._k] for first in range(0, len(pairs), self._k)]

    @torch.no_grad()
    def _read_once(self, ids: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
        """Keys and values of all tokens but the last, repeated for the beams."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, :-1]
        cache = DynamicCache()
        given = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1], "position_ids": positions}
        self._model(**{name: each.to(self._model.device) for name, each in given.items()}, cache=cache)
        cache.batch_repeat_interleave(self._k)
        return cache

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
