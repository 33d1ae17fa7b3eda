"""Whichever write, rename or fsync of a command fails or kills it: the older state is there or the newer one, and the
next start of the same command succeeds.

Models and metrics stand still here, so that a command takes a moment: what is written, and in what order, is real.
"""

import gc
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from absl import logging
from command import run_here
from faults import FAIL, KILL, Killed, faults
from runs import lines_of, session_of

from igd_jax import evaluate, prepare, sweep, train
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, owned, read_json
from igd_jax.data.prepared import load, read_meta
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluation.predictions import Prediction, Target, read_predictions
from igd_jax.session import train_loop
from igd_jax.session.evaluating import Scored
from igd_jax.settings.config_grid import Axis
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.step import StepFunctions, TrainState, init_state

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Orbax lets errors end its threads and its loops."""

SOME = 31


def strides(slow: int) -> Any:
    """Every how manieth point is tried: few, and in the slow lane more."""
    return pytest.mark.parametrize("stride", [SOME, pytest.param(slow, marks=pytest.mark.slow)])


def try_points(
    folder: Path,
    *,
    command: Callable[[], Any],
    reset: Callable[[], Any],
    check: Callable[[], Any],
    stride: int,
) -> None:
    """Run a command with a fault at one point after another, a failure and a kill in turns, and then without.

    Args:
      reset: brings the folder to what it was before the command.
      check: of what has to be there after any fault.
    """
    reset()
    with faults(folder) as whole:
        command()
    expected = _content(folder)
    assert len(whole.names) > 10
    print(f"{len(whole.names)} points: {', '.join(f'{whole.names.count(n)} {n}' for n in sorted(set(whole.names)))}")
    n_struck = 0
    points = _points(whole.names)
    points = points[min(stride, len(points)) // 2 :: stride]
    for number, at in enumerate(points):
        reset()
        with faults(folder, at=at, kind=KILL if number % 2 else FAIL) as found:
            try:
                command()
                assert not found.struck or "checkpoints/" in found.struck  # Orbax does without some files
            except (OSError, InputError, Killed):
                pass
        n_struck += found.struck is not None
        check()
        command()
        check()
        assert _content(folder) == expected, f"after {points.index(at)}: {found.struck}"
    gc.collect()  # what Orbax left open is told here, where it is ignored
    assert n_struck > len(points) / 2  # one near the end is not always reached: Orbax's threads are no clockwork


def _points(names: Sequence[str]) -> list[int]:
    """Numbers of the points that differ: of fsyncs in a row, between which no file changes, the first and the last."""
    inner = [number for number in range(1, len(names) - 1) if set(names[number - 1 : number + 2]) == {"fsync"}]
    return sorted(set(range(len(names))) - set(inner))


def _content(folder: Path) -> list[str]:
    """Names of all files but the arrays of checkpoints."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if "/tree/" not in name)


# ------------------------------------------------------------------------------------------------------------- prepare
@strides(1)
@pytest.mark.parametrize("had", [True, False])
def test_prepare(tmp_path, stride, had):
    older, newer, out = tmp_path / "older", tmp_path / "newer", tmp_path / "work" / "out"

    def command(seed: int = 1, output: Path = out) -> None:
        size = ("--n_users=30", "--n_items=20", "--n_events=200", "--k_core=0")
        done = run_here(prepare, "--source=synthetic", *size, f"--seed={seed}", f"--output={output}")
        if done.code:
            raise OSError(done.err)

    command(seed=0, output=older)
    command(output=newer)
    wanted = {load(folder).meta["fingerprint"] for folder in ((older, newer) if had else (newer,))}

    def reset() -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        if had:
            shutil.copytree(older, out)

    def check() -> None:
        with owned(out):  # as the next start does
            if had or out.exists():
                assert load(out).meta["fingerprint"] in wanted

    try_points(out.parent, command=command, reset=reset, check=check, stride=stride)


# --------------------------------------------------------------------------------------------------------------- train
@pytest.fixture
def still(tiny, tmp_path, monkeypatch) -> Path:
    """A folder for runs whose model is its step, and for evaluations that are counted."""
    logging.set_verbosity(logging.FATAL)  # as the commands do
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    session, counts = session_of(tiny_run.tiny_config(tiny), tmp_path / "no run"), iter(range(10**6))

    def initial_state(*args: Any, **_: Any) -> tuple[TrainState, StepFunctions, Any, Any]:
        def update(state: TrainState, _: Any) -> tuple[TrainState, dict[str, jax.Array]]:
            params = {"w": state.params["w"] + 1}
            return state.replace(params=params, step=state.step + 1), {"loss": params["w"]}

        functions = StepFunctions(lambda *_: None, None, update, lambda *_: jnp.float32(0))
        return init_state({"w": jnp.float32(0)}, args[-1]), functions, {}, lambda params: params

    def evaluate_loss(_: StepFunctions, state: TrainState, *__: Any, **___: Any) -> dict[str, float]:
        return {"valid_loss": 1 / (1 + float(state.params["w"]))}

    def score(config: Any, *_: Any, **__: Any) -> Scored:
        scored = object.__new__(Scored)
        session = SimpleNamespace(prepared=SimpleNamespace(meta=read_meta(Path(config.data.dir))))
        ranker = SimpleNamespace(trained=SimpleNamespace(step=4), session=session)
        vars(scored).update(metrics={"n": next(counts)}, users_per_second=1.0, ranker=ranker)
        vars(scored).update(catalogue=SimpleNamespace(is_candidate=np.ones(3, bool)))
        return scored

    def predictions_of(scored: Any) -> Iterator[Prediction]:
        for row in range(3):
            yield Prediction(row, str(scored.metrics["n"]), Target(("sku0",), "a", (True,)), ())

    for module, name, stub in (
        (train, "set_up", lambda settings, _: replace(session, settings=settings)),
        (train, "initial_state", initial_state),
        (train_loop, "evaluate_loss", evaluate_loss),
        (train, "plot_losses", lambda *_: None),
        (train, "environment", lambda: {"commit": None}),
        (evaluate, "environment", lambda: {"commit": None}),
        (evaluate, "score", score),
        (evaluate, "has_beam", lambda _: False),
        (evaluate, "evaluation_table", lambda *_, **__: "a table"),
        (evaluate, "examples_of", lambda _: ["an example"]),
        (evaluate, "predictions_of", predictions_of),
    ):
        monkeypatch.setattr(module, name, stub)
    return tmp_path / "work"


def _config(tiny: Path, num_steps: int) -> Any:
    every_two = {"train.checkpoint_every_steps": 2, "train.eval_every_steps": 2, "train.log_every_steps": 1}
    return tiny_run.tiny_config(tiny, {"train.num_steps": num_steps, **every_two})


def _check_run(run: Path, *, least: int) -> None:
    """The run has a state of at least this step, and all that belongs to it."""
    like = init_state({"w": jnp.float32(0)}, train.make_optimizer(lambda _: 0.1, clip_norm=1.0, weight_decay=0.0))
    checkpoints = Checkpoints(run / "checkpoints")
    found, best = checkpoints.restore_last(like), checkpoints.restore_best(like.params)
    checkpoints.close()
    if not least and found is None:
        return
    step = int(found[0].step)
    assert step >= least
    assert found[0].params["w"] == step
    assert best[0]["w"] == best[1]["best_step"] >= found[1]["best_step"]
    assert read_json(run / "config.json")["train"]["num_steps"] >= least
    load_tokenizer(run / "tokenizer")
    told = [(line["step"], "loss" in line) for line in lines_of(run, broken=True)]
    wanted = [
        (number, is_step) for number in range(1, step + 1) for is_step in (True, False) if is_step or not number % 2
    ]
    assert told[: len(wanted)] == wanted


@strides(3)
@pytest.mark.parametrize("had", [0, 4])
def test_train(tiny, still, stride, had, capsys):
    run, before = still / "run", still.parent / "before"
    if had:
        train.train(_config(tiny, had), Workdir(str(before)))

    def reset() -> None:
        shutil.rmtree(still, ignore_errors=True)
        if had:
            shutil.copytree(before, run)

    try_points(
        still,
        command=lambda: train.train(_config(tiny, had + 2), Workdir(str(run))),
        reset=reset,
        check=lambda: _check_run(run, least=had),
        stride=stride,
    )
    assert [line["step"] for line in lines_of(run) if "loss" in line] == list(range(1, had + 3))


# ------------------------------------------------------------------------------------------------- evaluate, and sweep
def _check_evaluation(folder: Path) -> None:
    """The folder holds one evaluation, and not parts of two."""
    with owned(folder):
        (number,) = {int(prediction.user) for prediction in read_predictions(folder / "predictions.jsonl")}
        assert read_json(folder / "metrics.json") == {"n": number}


@strides(1)
def test_evaluate(tiny, still, stride):
    config, run, before = _config(tiny, 2), Workdir(str(still / "run")), still.parent / "before"
    train.train(config, Workdir(str(before)))
    evaluate.evaluate(config, Workdir(str(before)), name="test")

    def reset() -> None:
        shutil.rmtree(still, ignore_errors=True)
        shutil.copytree(before, run.path)

    try_points(
        still,
        command=lambda: evaluate.evaluate(config, run, name="test"),
        reset=reset,
        check=lambda: _check_evaluation(run.eval("test")),
        stride=stride,
    )


@strides(7)  # its writes are those of the two commands
def test_sweep(tiny, still, stride):
    root = still / "root"

    def check() -> None:
        if (folder := root / "seed=1" / "eval" / "test").exists():
            _check_evaluation(folder)

    try_points(
        still,
        command=lambda: sweep.sweep(_config(tiny, 2), root, grid=[Axis("train.seed", [1])], evaluations=[]),
        reset=lambda: shutil.rmtree(still, ignore_errors=True),
        check=check,
        stride=stride,
    )
    assert read_json(root / "seed=1" / "checkpoints" / "newest.json") == {"step": 2}
