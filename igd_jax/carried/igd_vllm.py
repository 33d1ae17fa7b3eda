"""Lets vLLM write items of this folder only, with the discount by gain, also in its beam search.

This file lies in a folder that ``igd export`` has written, beside ``igd_transformers.py``, which it imports: put the
folder on PYTHONPATH. It has the interface of vLLM's V1 model runner (``vllm.v1.sample.logits_processor``).

    VLLM_USE_V2_MODEL_RUNNER=0 PYTHONPATH=FOLDER python
    llm = LLM("FOLDER", logits_processors=["igd_vllm:ItemLogitsProcessor"], logprobs_mode="processed_logits",
              max_logprobs=2 * BEAMS)
    llm.beam_search([{"prompt_token_ids": Items().prompt(["Title A", "Title B"])}],
                    BeamSearchParams(beam_width=BEAMS, max_tokens=..., length_penalty=0.0))

vLLM's beam search asks for one token at a time, after a prompt that holds what is written so far: that is what follows
the last end of a prompt, whose token ids are in ``igd_jax.json``.
"""

from collections.abc import Sequence

import torch
from igd_transformers import Items
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality


class ItemLogitsProcessor(LogitsProcessor):
    """Replaces logits by the scores of `Items.scores`.

    A request whose prompt does not end like a prompt of the run can only end: it never writes anything else.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool):
        self._items = Items()
        self._end: list[int] = self._items.settings["prompt"]["end"]
        self._longest: int = self._items.settings["decode"]["max_new_tokens"]
        self._requests: dict[int, tuple[Sequence[int], Sequence[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """Greedy search is changed, too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Keep prompt and output of each row of the batch; vLLM goes on appending to the output."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._requests.pop(row, None)
        for row, _, prompt, output in batch_update.added:
            self._requests[row] = (prompt or [], output)
        for old, new, direction in batch_update.moved:
            moved, replaced = self._requests.pop(old, None), self._requests.pop(new, None)
            if moved is not None:
                self._requests[new] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                self._requests[old] = replaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores of the next token of each request [R V], in place of its logits."""
        rows = sorted(row for row in self._requests if row < len(logits))
        if rows:
            texts = [self._written(*self._requests[row]) for row in rows]
            logits[rows] = self._items.scores(logits[rows], texts).to(logits.dtype)
        return logits

    def _written(self, prompt: Sequence[int], output: Sequence[int]) -> list[int]:
        """What follows the last end of a prompt; without one, a token that begins no item."""
        n_ids = self._longest + len(self._end)
        ids = [*prompt[-n_ids:], *output][-n_ids:]
        for start in range(len(ids) - len(self._end), -1, -1):
            if ids[start : start + len(self._end)] == self._end:
                return ids[start + len(self._end) :]
        return [self._items.settings["eos"]]
