"""Recommends with ``generate`` of transformers, which then writes items of this folder only.

This file lies in a folder that ``igd export`` has written, whose other files it reads. It needs NumPy, PyTorch,
tokenizers and transformers, and nothing else.

    import sys
    from transformers import AutoModelForCausalLM

    sys.path.insert(0, "FOLDER")
    from igd_transformers import Items, recommend

    items, model = Items(), AutoModelForCausalLM.from_pretrained("FOLDER")
    recommend(model, items, [["Title A", "Title B"]])

Letters in shapes: R rows (texts that are being written), S steps, V vocabulary, n edges.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

HERE = Path(__file__).resolve().parent


class Items:
    """The candidates as a trie of token ids, their names, and the prompt around a history.

    Args:
      folder: the exported folder.
      alpha: discount of siblings with high gain, 0 to 1; None = that of the run.

    Attributes:
      settings: content of ``igd_jax.json``.
      rows: the items of each row of the trie, as in ``items.jsonl``; they share a title.
      alpha: the discount.
    """

    def __init__(self, folder: str | Path = HERE, *, alpha: float | None = None):
        folder = Path(folder)
        self.settings: dict[str, Any] = json.loads((folder / "igd_jax.json").read_text(encoding="utf-8"))
        self.alpha = self.settings["decode"]["alpha"] if alpha is None else alpha
        with np.load(folder / "trie.npz", allow_pickle=False) as file:
            self._trie = {name: file[name] for name in file.files}
        branch, leaf, n_nodes = self._trie["branch"], self._trie["leaf"], len(self._trie["token"])
        self._branch = np.full(n_nodes, -1)
        self._branch[branch] = np.arange(len(branch))
        self._row = np.full(n_nodes, -1)
        self._row[leaf] = self._trie["row"]
        # Edges out of branching nodes are sorted by node and then by token, here packed into one integer.
        count = np.diff(self._trie["child_start"])
        self._keys = np.repeat(np.arange(len(branch)) << 32, count) | self._trie["token"][self._trie["child"]]
        self.rows: list[list[dict[str, Any]]] = [[] for _ in leaf]
        with (folder / "items.jsonl").open(encoding="utf-8") as lines:
            for item in map(json.loads, lines):
                if item["row"] is not None:
                    self.rows[item["row"]].append(item)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # one that is spelt out in a title is plain text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def prompt(self, history: Sequence[str]) -> list[int]:
        """Token ids of the prompt around titles, oldest first; a prompt that is too long loses its oldest titles."""
        ids, room, n_titles = self._encoded(history), self.settings["prompt"]["room"], len(history)
        if len(ids) <= room:
            return ids
        newest = [history[n_titles - count :] for count in range(n_titles)]
        return self._encoded(newest[bisect_right(newest, room, key=lambda some: len(self._encoded(some))) - 1])

    def _encoded(self, history: Sequence[str]) -> list[int]:
        words = self.settings["prompt"]
        titles = (words["quote"] + title + words["quote"] for title in history)
        told = words["lead"] + words["before"] + (words["after"] + words["before"]).join(titles) + words["closing"]
        pieces = [words["apart"], told] if words["apart"] else [told]
        ids = [] if words["bos"] is None else [words["bos"]]
        for piece in pieces:
            ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def row(self, tokens: Sequence[int]) -> int:
        """The row that these tokens write, whatever follows the end of the text; -1 if they write none."""
        tokens, eos = list(tokens), self.settings["eos"]
        if eos not in tokens:
            return -1
        node = int(self._walk([tokens[: tokens.index(eos) + 1]])[0])
        return int(self._row[node]) if node >= 0 else -1

    def scores(self, scores: torch.Tensor, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Scores of all tokens after texts; -inf for those that lead to no item.

            (logp / temperature - 1e-7) * (1 - alpha * factor)

        A text that has ended, or is the beginning of no item, can only end: EOS has the score 0 there.

        Args:
          scores: logits or log-probabilities of the next token [R V].
          texts: token ids that have been written so far, without prompt and padding.

        Returns:
          Scores [R V], float32.
        """
        decode = self.settings["decode"]
        rows, tokens, factor, ended = self._children(self._walk(texts))
        logp = torch.log_softmax(scores.float() / decode["softmax_temperature"], dim=-1)
        legal = tuple(torch.from_numpy(index).to(scores.device) for index in (rows, tokens))
        new = torch.full_like(logp, -torch.inf)
        new[legal] = logp[legal]
        if decode["normalize"] == "children":
            new = torch.log_softmax(new, dim=-1)
        discount = torch.from_numpy(1.0 - self.alpha * factor).float().to(scores.device)
        new[legal] = (new[legal] / decode["temperature"] - 1e-7) * discount
        new[torch.from_numpy(ended).to(scores.device)] = -torch.inf
        new[torch.from_numpy(ended).to(scores.device), self.settings["eos"]] = 0.0
        return new

    def _walk(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        """Trie node that each text leads to [R]; -1 if none."""
        node = np.zeros(len(texts), np.int64)
        for place in range(max(map(len, texts), default=0)):
            at = np.array([row for row, text in enumerate(texts) if len(text) > place and node[row] >= 0], np.int64)
            node[at] = self._step(node[at], np.array([texts[row][place] for row in at], np.int64))
        return node

    def _step(self, node: np.ndarray, token: np.ndarray) -> np.ndarray:
        """The child of each node by a token; -1 if it has none."""
        branch = self._branch[node]
        edge = np.minimum(np.searchsorted(self._keys, branch << 32 | token), len(self._keys) - 1)
        one = np.minimum(node + 1, len(self._row) - 1)  # where a node has a single child
        if not len(self._keys):
            child = np.full_like(node, -1)
        else:
            child = np.where(self._keys[edge] == branch << 32 | token, self._trie["child"][edge], -1)
        is_one = (branch < 0) & (self._row[node] < 0) & (self._trie["token"][one] == token)
        return np.where(branch >= 0, child, np.where(is_one, one, -1))

    def _children(self, node: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row, token and decode factor of each edge out of the nodes [n], and the rows that have none."""
        branch, start = np.where(node >= 0, self._branch[node], -1), self._trie["child_start"].astype(np.int64)
        wide = np.flatnonzero(branch >= 0)
        first = start[branch[wide]]
        count = start[branch[wide] + 1] - first
        edge = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        one = np.flatnonzero((branch < 0) & (node >= 0) & (self._row[node] < 0))
        rows = np.concatenate([np.repeat(wide, count), one])
        child = np.concatenate([self._trie["child"][edge], node[one] + 1])
        factor = np.concatenate([self._trie["factor"][edge], np.zeros(len(one), np.float32)])
        ended = np.setdiff1d(np.arange(len(node)), rows)
        return rows, self._trie["token"][child].astype(np.int64), factor, ended


class ItemLogitsProcessor(LogitsProcessor):
    """Lets ``generate`` write items only, by greedy or beam search or by sampling.

    Args:
      items: the items.
      prompt_length: tokens before the first that is written: columns of the prompts, padding included, or 1 for an
        encoder-decoder.
    """

    def __init__(self, items: Items, prompt_length: int):
        self._items, self._prompt_length = items, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of the next tokens [R V]."""
        return self._items.scores(scores, input_ids[:, self._prompt_length :].tolist())


@torch.no_grad()
def recommend(model: Any, items: Items, histories: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    """Search the items that best follow each history, by the beam of the run.

    Args:
      model: model of the folder.
      items: its items.
      histories: titles, oldest first.

    Returns:
      For each history results, best first: ``{"items": [id, ...], "title": ..., "score": ...}``.
    """
    eos, decode, n_beams = items.settings["eos"], items.settings["decode"], items.settings["decode"]["num_beams"]
    prompts = [items.prompt(history) for history in histories]
    if not prompts:
        return []
    width = max(map(len, prompts))
    ids = torch.tensor([[eos] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    before = 1 if model.config.is_encoder_decoder else width
    # The cache of transformers 5 has room for as many layers as the encoder of a T5 has.
    fits = getattr(model.config, "num_decoder_layers", None) in (None, getattr(model.config, "num_layers", None))
    search = GenerationConfig(
        num_beams=n_beams,
        num_return_sequences=n_beams,
        max_new_tokens=decode["max_new_tokens"],
        length_penalty=decode["length_penalty"],
        do_sample=False,
        early_stopping=False,
        use_cache=fits,
        eos_token_id=eos,
        pad_token_id=eos,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=search,
        logits_processor=LogitsProcessorList([ItemLogitsProcessor(items, before)]),
    )
    return _lists(items, found, found.sequences[:, before:])


def _lists(items: Items, found: Any, written: torch.Tensor) -> list[list[dict[str, Any]]]:
    """The results in what ``generate`` has found, of which the tokens `written` [R S] follow the prompts."""
    eos, decode, n_beams = items.settings["eos"], items.settings["decode"], items.settings["decode"]["num_beams"]
    lengths = (written != eos).sum(1) + 1  # of texts that have ended; padding is EOS, too
    if n_beams > 1:
        scores = found.sequences_scores
        # Where there are fewer items than beams, lists are filled with texts without their EOS, or with several.
        is_whole = (found.beam_indices >= 0).sum(1) == lengths
    else:  # transformers leaves scores out; padding has the score 0
        steps = [step.gather(1, written[:, [place]]) for place, step in enumerate(found.scores)]
        scores = torch.cat(steps, 1).sum(1) / lengths ** decode["length_penalty"]
        is_whole = torch.ones_like(lengths, dtype=torch.bool)
    lists: list[dict[int, dict[str, Any]]] = [{} for _ in range(len(written) // n_beams)]
    results = zip(written.tolist(), scores.tolist(), is_whole.tolist(), strict=True)
    for number, (tokens, score, is_result) in enumerate(results):
        row = items.row(tokens) if is_result else -1
        if row >= 0:
            named = items.rows[row]
            result = {"items": [item["item"] for item in named], "title": named[0]["title"], "score": score}
            lists[number // n_beams].setdefault(row, result)  # copies of a beam come after it
    return [list(of.values())[: decode["top_k"]] for of in lists]
