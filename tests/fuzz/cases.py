"""One case: a private copy of valid input, one thing wrong with it, the command run in this process, and a verdict."""

import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np

from igd_jax.core.types import LossSum, Recommendations
from igd_jax.data import prepared
from igd_jax.session import weights
from igd_jax.session.ranker import Ranker
from igd_jax.training.step import StepFunctions, TrainState
from tests.command import Done, run_here
from tests.fuzz import fixtures, oracle
from tests.fuzz.mutators import change_options, damage
from tests.fuzz.structure import damage_table
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.values import Rng, pick


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
      target: its name.
      told: what was wrong with the input.
      code: exit code; None where it did not get that far.
      message: start of what it wrote to the standard error.
      faults: what is not as it must be.
      seconds: of CPU.
    """

    target: str
    told: str
    code: int | None
    message: str
    faults: list[str]
    seconds: float


class Cases:
    """Runs cases in this process, over one folder of valid inputs. A case is the same whichever ran before it."""

    def __init__(self, pristine: Path, scratch: Path, *, seed: int):
        self._pristine, self._scratch, self._seed = pristine, scratch, seed
        self._expected: dict[str, dict[str, str]] = {}

    def run(self, number: int) -> Ended:
        """Run a case and judge how it ended."""
        target, rng = TARGETS[number % len(TARGETS)], np.random.default_rng([self._seed, number])
        expected = self._without_damage(target)
        here = self._copy(target)
        arguments, told = _with_one_thing_wrong(target, rng, here)
        self._scratch.with_name(TOLD).write_text(told, encoding="utf-8", errors="backslashreplace")
        before, start = oracle.seen(self._scratch), time.process_time()
        done, faults = _run(target, arguments, here)
        seconds, after = time.process_time() - start, oracle.seen(self._scratch)
        is_success = done is not None and done.code == 0
        if done is not None:
            faults += oracle.of_the_message(done)
        prefix = os.path.relpath(here, self._scratch)
        writes = [f"{prefix}/{path}" for path in target.writes]
        faults += oracle.of_the_files(before, after, is_success=is_success, writes=writes, anywhere=target.anywhere)
        if done is not None and is_success:
            faults += oracle.of_the_result(expected, _results(target, done, here), done.out)
        if seconds > oracle.SECONDS:
            faults.append(f"{seconds:.0f} s of CPU")
        code, message = (None, "") if done is None else (done.code, ascii(done.err[: oracle.LONGEST]))
        return Ended(target.name, told, code, message, faults, seconds)

    def _copy(self, target: Target) -> Path:
        """A fresh copy of what the command reads, in the place of the last case's; returns the folder to run in."""
        os.chdir(self._pristine)
        shutil.rmtree(self._scratch, ignore_errors=True)
        return fixtures.copy(self._pristine, target.needs, self._scratch)

    def _without_damage(self, target: Target) -> dict[str, str]:
        """The results of the command on valid input, on which it has to succeed."""
        if target.name not in self._expected:
            here = self._copy(target)
            done, faults = _run(target, list(target.arguments), here)
            if done is None or done.code:
                raise AssertionError(f"{target.name}, undamaged: {done} {faults}")
            self._expected[target.name] = _results(target, done, here)
        return self._expected[target.name]


def _results(target: Target, done: Done, here: Path) -> dict[str, str]:
    return {name: done.out if name == "out" else (here / name).read_text(encoding="utf-8") for name in target.result}


# --------------------------------------------------------------------------------------------------------------- damage
def _with_one_thing_wrong(target: Target, rng: Rng, here: Path) -> tuple[list[str], str]:
    """Damage a file, or change an option; returns the arguments to run with, and what is wrong now."""
    if target.options:
        arguments = change_options(rng, target.arguments, target.options)
        return arguments, " ".join(f"{each:.120}" for each in arguments if each not in target.arguments)
    path = pick(rng, sorted(here.glob(pick(rng, target.damaged))))
    if target.signed:
        told = f"{path.name}: {damage_table(rng, path)}"
        _sign(path.parent)
    else:
        told = f"{path.relative_to(here)}: {damage(rng, path)}"
    return list(target.arguments), told


def _sign(folder: Path) -> None:
    """Make the fingerprint in meta.json fit the files of a prepared folder, as who forges one would."""
    marks: list[str] = []
    real = prepared.fingerprint_of

    def record(*parts: Any) -> str:
        marks.append(real(*parts))
        return marks[-1]

    with mock.patch.object(prepared, "fingerprint_of", record), suppress(Exception):
        prepared.load(folder)
    if marks:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        (folder / "meta.json").write_text(json.dumps(meta | {"fingerprint": marks[-1]}), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------------ run
def _run(target: Target, arguments: list[str], here: Path) -> tuple[Done | None, list[str]]:
    """Run the command in its folder: how it ended, or what it raised."""
    os.chdir(here)
    errors = here.parents[2] / NATIVE
    with native_errors(errors), without_network() if target.idle else nullcontext(), training_idles():
        try:
            done = run_here(target.module, *arguments)
        except BaseException as error:  # whatever a command raises is a finding
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/igd_jax/" in frame.filename]
            place = f"{frames[-1].filename.split('/igd_jax/')[-1]}:{frames[-1].lineno}" if frames else "outside"
            return None, [f"traceback of {type(error).__name__} at {place} ({error!s:.200})"]
    return replace(done, err=done.err + errors.read_text(encoding="utf-8", errors="replace")), []


NATIVE, TOLD = "native_errors.txt", "told.txt"
"""Files beside the case: what libraries that are not Python wrote to the standard error, and what is wrong with it."""


@contextmanager
def native_errors(path: Path) -> Iterator[None]:
    """Send what is written to the file descriptor of the standard error into a file."""
    saved = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def without_network() -> Iterator[None]:
    """Lists are the first rows of the catalogue: all is read and checked, and no network is compiled."""

    def rank(self: Ranker, examples: Any, **_: Any) -> Recommendations:
        rows = np.arange(self.session.settings.decode.top_k) % len(self.index.catalog.lengths)
        shape = (len(examples), len(rows))
        return Recommendations(np.broadcast_to(rows, shape), np.broadcast_to(np.float32(-1) - rows, shape))

    with mock.patch.object(Ranker, "rank", rank):
        yield


@contextmanager
def training_idles() -> Iterator[None]:
    """Steps count and change nothing: all is read, checked, saved and restored, and nothing is compiled."""

    def make_step(*_: Any, **__: Any) -> StepFunctions:
        total = LossSum(jnp.float32(1), jnp.float32(1), {})

        def accumulate(state: TrainState, batches: Any) -> LossSum:
            for _ in batches:
                pass
            return total

        def update(state: TrainState, _: LossSum) -> tuple[TrainState, dict[str, Any]]:
            return replace(state, step=state.step + 1), {"loss": jnp.float32(1), "grad_norm": jnp.float32(1)}

        return StepFunctions(accumulate, None, update, lambda state, batch: total)

    with mock.patch.object(weights, "make_step", make_step):
        yield
