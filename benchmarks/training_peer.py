"""The other side of the training benchmark: a torch loop as published, with weights from a trie of dictionaries."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks import common
from igd_jax.data.examples import Examples
from igd_jax.session.session import Session

IGNORED = -100


class Peer:
    """A torch loop.

    Args:
      session: run without its weights.
      examples: rows that steps draw from.
      model: model on its device; None = with the weights of the session, in float32 on the CPU.
    """

    def __init__(self, session: Session, examples: Examples, model: PreTrainedModel | None = None):
        self._index, self._eos, self._examples = session.index, session.tokenizer.eos, examples
        self._train, self._beta = session.settings.train, session.settings.method.args["beta"]
        self._root = common.build_dict_trie(session.index)
        self._model = (model or common.torch_model(session)).train()
        rate, decay = self._train.learning_rate, self._train.weight_decay
        is_gpu = self._model.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=rate, weight_decay=decay, fused=is_gpu)

    def __call__(self, steps: Sequence[np.ndarray]) -> list[float]:
        """Take steps, each over the given rows; the loss of each, before its update."""
        return [self._step(rows) for rows in steps]

    def tokens(self, rows: np.ndarray) -> int:
        """Tokens through the model in one step, padding included."""
        return sum(self._collate(group)[0].numel() for group in self._groups(rows))

    def _step(self, rows: np.ndarray) -> float:
        loss_sum = weight_sum = 0.0
        for group in self._groups(rows):
            loss, weight = self._loss(*self._collate(group))
            loss.backward()
            loss_sum, weight_sum = loss_sum + loss.item(), weight_sum + weight
        parameters = list(self._model.parameters())
        for parameter in parameters:
            parameter.grad /= weight_sum
        torch.nn.utils.clip_grad_norm_(parameters, self._train.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss_sum / weight_sum

    def _groups(self, rows: np.ndarray) -> list[np.ndarray]:
        size = self._train.micro_batch_size
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _collate(self, group: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, mask and labels, padded on the right to a multiple of 8."""
        prompts = [self._examples.prompt[row] for row in group.tolist()]
        targets = [self._index.item_tokens[item] for item in self._examples.target[group].tolist()]
        longest = max(len(prompt) + len(target) for prompt, target in zip(prompts, targets, strict=True))
        shape = (len(group), -(-longest // 8) * 8)
        ids, labels = torch.full(shape, self._eos), torch.full(shape, IGNORED)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            begin, end = len(prompt), len(prompt) + len(target)
            ids[row, :end] = torch.from_numpy(np.concatenate([prompt, target]))
            labels[row, begin:end], mask[row, :end] = ids[row, begin:end], 1
        device = self._model.device
        return ids.to(device), mask.to(device), labels.to(device)

    def _loss(self, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Weighted sum of cross-entropies, and the sum of the weights."""
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        rows = [[token for token in row if token != IGNORED] for row in labels.tolist()]
        weights = [weight for row in rows for weight in self._weights(row)]
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        logits = logits.float().flatten(0, 1)
        nll = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        weight = torch.zeros_like(nll)
        weight[labels != IGNORED] = torch.tensor(weights, device=nll.device)
        return (weight * nll).sum(), sum(weights)

    def _weights(self, tokens: list[int]) -> list[float]:
        """Weights of tokens: 1 if the gain is above 0, else beta; beta for all tokens of a title off the trie."""
        weights, node = [], self._root
        for token in tokens:
            child = node.children.get(token)
            if child is None:
                return [self._beta] * len(tokens)
            weights.append(1.0 if node.entropy - child.entropy else self._beta)
            node = child
        return weights
