"""The recurrence of docs/decoding.md, The recurrence, in plain Python: what the compiled searches are compared with."""

from collections.abc import Sequence

import numpy as np
from plain_trie import EOS, PlainNode, plain_entropy


def plain_factors(nodes: list[PlainNode], counts: list[int]) -> list[np.float32]:
    """(IG - min) / (max - min + 1e-7) over seen siblings, for the edge into each node; unseen ones have 0."""
    factors = [np.float32(0)] * len(nodes)
    for node in nodes:
        seen = [child for child in node.by_token() if any(counts[r] for r in child.rows)]
        gain = [plain_entropy(node, counts) - plain_entropy(child, counts) for child in seen]
        scaled = [(value - min(gain)) / (max(gain) - min(gain) + 1e-7) for value in gain]
        for child, value in zip(seen, scaled, strict=True):
            factors[child.number] = np.float32(value)
    return factors


def edge_scores(
    logp: np.ndarray, factors: Sequence[np.float32], *, alpha: float, temperature: float
) -> list[np.float32]:
    """The processed log-probability of the edge into each node."""
    return [
        (p / np.float32(temperature) - np.float32(1e-7)) * (np.float32(1) - np.float32(alpha) * factor)
        for p, factor in zip(logp, factors, strict=True)
    ]


def plain_search(
    root: PlainNode, score: Sequence[np.float32], *, k: int, max_length: int, length_penalty: float
) -> list[tuple[np.float32, int]]:
    """Final score and node of each result, best first."""
    running, finished = [(np.float32(0), root)], []
    for length in range(1, max_length + 1):
        penalty = np.float32(length) ** np.float32(length_penalty)
        candidates = [(total + score[child.number], child) for total, node in running for child in node.by_token()]
        kept = sorted(candidates, key=lambda pair: -pair[0])[: 2 * k]  # stable: earlier beam, then lower token
        is_last = length == max_length
        ends = [(total / penalty, child) for total, child in kept[:k] if child.token == EOS or is_last]
        finished = sorted(finished + ends, key=lambda pair: -pair[0])[:k]
        running = [(total, child) for total, child in kept if child.token != EOS][:k]
        if not running or (len(finished) == k and finished[-1][0] >= running[0][0] / penalty):
            break
    return [(total, node.number) for total, node in finished]
