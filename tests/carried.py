"""The files that an exported folder carries, imported from there, and a stand-in for what they use of vLLM."""

import enum
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch


def carried(folder: Path) -> ModuleType:
    """``igd_transformers.py`` of a folder."""
    return _module("igd_transformers", folder)


def _module(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class MoveDirectionality(enum.Enum):
    UNIDIRECTIONAL = enum.auto()
    SWAP = enum.auto()


class BatchUpdate(NamedTuple):
    batch_size: int
    removed: list[int]
    added: list[tuple[int, Any, list[int] | None, list[int]]]
    moved: list[tuple[int, int, MoveDirectionality]]


class LogitsProcessor:
    """The interface of vllm.v1.sample.logits_processor: the constructor and three methods."""


@contextmanager
def vllm_of(folder: Path) -> Iterator[ModuleType]:
    """``igd_vllm.py`` of a folder, where vLLM seems to be installed."""
    interface = {
        "BatchUpdate": BatchUpdate,
        "LogitsProcessor": LogitsProcessor,
        "MoveDirectionality": MoveDirectionality,
    }
    modules = {
        "vllm": ModuleType("vllm"),
        "vllm.config": SimpleNamespace(VllmConfig=object),
        "vllm.v1.sample.logits_processor": SimpleNamespace(**interface),
        "igd_transformers": carried(folder),
    }
    with mock.patch.dict(sys.modules, modules):
        yield _module("igd_vllm", folder)


@torch.no_grad()
def vllm_beam_search(
    model: Any, processor: Any, prompt: list[int], *, width: int, max_tokens: int, eos: int
) -> list[tuple[list[int], float]]:
    """What `LLM.beam_search` does: every beam is a request for one token, whose prompt holds what is written so far.

    Sums of processed logits, length penalty 0; all that end among the best 2K tokens of a beam are complete.
    """
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    complete: list[tuple[list[int], float]] = []
    for _ in range(max_tokens):
        added = [(row, None, prompt + text, []) for row, (text, _) in enumerate(beams)]
        processor.update_state(BatchUpdate(len(beams), [], added, []))
        logits = model(torch.tensor([prompt + text for text, _ in beams])).logits[:, -1]
        found = processor.apply(logits.float())
        longer = [
            ([*text, token], total + score)
            for (text, total), row in zip(beams, found, strict=True)
            for score, token in zip(*(best.tolist() for best in row.topk(2 * width)), strict=True)
        ]
        complete += [beam for beam in longer if beam[0][-1] == eos]
        beams = sorted((beam for beam in longer if beam[0][-1] != eos), key=lambda beam: -beam[1])[:width]
        processor.update_state(BatchUpdate(0, list(range(len(added))), [], []))
    return [beam for beam in sorted(complete + beams, key=lambda beam: -beam[1])[:width] if beam[1] > -torch.inf]
