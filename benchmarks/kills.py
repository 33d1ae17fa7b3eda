"""Kill a training run repeatedly, restart it each time, and check that nothing is lost.

    python -m benchmarks.kills [--kills=100] [--damages=20] [--seed=0] [--processes=1]

Runs of one small model are killed by SIGKILL and SIGTERM alternately at random moments: while they start, compile, take
a step, evaluate or save. Before some starts the newest state is damaged: a bit is flipped, a file is cut, or everything
is removed. A completed run must equal one that was never killed: bitwise in the last state and the best parameters, and
with each step once in metrics.jsonl. Further runs follow until the number of kills is reached.

With --processes=2, each run is that of two processes, one of which is killed. Both must end.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from benchmarks import common
from configs import sasrec
from igd_jax import train as program
from igd_jax.core import meeting
from igd_jax.core.errors import SYSTEM, InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.data.prepared import save
from igd_jax.prepare import prepare
from igd_jax.session import train_loop
from igd_jax.session.session import set_up
from igd_jax.session.weights import initial_state
from igd_jax.settings.settings import settings_from
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.train_log import SPEED, TrainLog

STEPS = 60
MOMENTS = {"start": 1, "compile": 1, "step": 12, "evaluate": 3, "save": 4}
"""Kinds of moments at which runs are killed; a run is killed at one of the first so many moments of a kind."""
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
EXIT_CODES = {-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM, 0}
"""Expected exit codes; -SIGTERM before training handles signals."""
LOST_CODES = {-signal.SIGABRT, SYSTEM}
"""Those of a process that lost another one."""
PATIENCE = 300.0
"""Number of seconds without progress after which a run counts as stuck."""


def config_of(data: Path) -> Any:
    """Config of a SASRec so small that a start takes a second or two."""
    config = sasrec.get_config()
    config.data.dir = str(data)
    config.tokenizer.vocab_size = 300
    config.method.args.width = 16
    config.train.update(global_batch_size=16, micro_batch_size=8, num_steps=STEPS, warmup_steps=5, patience=0)
    config.train.update(eval_every_steps=5, eval_examples=32, checkpoint_every_steps=3, log_every_steps=2)
    return config


def train(data: Path, workdir: Path, log: Path, moments: Connection, place: list[str]) -> None:
    """Train in this process, whose `place` among others flags say, and report each moment when it comes."""
    meeting.define_flags()
    flags.FLAGS(["train", *place])
    meeting.MEETING_SECONDS, meeting.HEARTBEAT_SECONDS, meeting.GRACE_SECONDS = 20, 10, 2.0
    tqdm.set_lock(threading.RLock())  # the default lock outlives a killed process
    jax.config.update("jax_compilation_cache_dir", str(log.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    is_first = True

    def telling(moment: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_first
            moments.send("compile" if is_first and moment == "step" else moment)
            is_first &= moment != "step"
            return function(*args, **kwargs)

        return told

    TrainLog.take = telling("step", TrainLog.take)
    train_loop.evaluate_loss = telling("evaluate", train_loop.evaluate_loss)
    for name in ("save_last", "save_best"):
        setattr(Checkpoints, name, telling("save", getattr(Checkpoints, name)))
    moments.send("start")
    with log.open("a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)  # what libraries print
        with meeting.together():
            program.train(config_of(data), Workdir(str(workdir)))


@dataclass(frozen=True)
class Run:
    """Processes that train together, and the pipe through which each reports its moments."""

    processes: list[Any]
    moments: list[Connection]

    def end(self) -> list[int | None]:
        """Wait for all processes; returns their exit codes, None for those that do not end."""
        for process in self.processes:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
        return [process.exitcode for process in self.processes]


def start(context: Any, data: Path, workdir: Path, log: Path, *, n_processes: int) -> Run:
    """Start `train` in separate processes."""
    run = Run([], [])
    address = f"127.0.0.1:{free_port()}"
    for number in range(n_processes):
        place = [f"--num_processes={n_processes}"]
        place += [f"--coordinator_address={address}", f"--process_id={number}"] if n_processes > 1 else []
        moments, theirs = context.Pipe(duplex=False)
        run.processes.append(context.Process(target=train, args=(data, workdir, log, theirs, place)))
        run.moments.append(moments)
        run.processes[-1].start()
        theirs.close()
    return run


def free_port() -> int:
    """A port that no program uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def kill(run: Run, sign: int, moment: str, rng: np.random.Generator) -> None:
    """Kill one process of a run, unless it ends before, at one of its next moments of a kind."""
    victim = int(rng.integers(len(run.processes)))
    wanted = int(rng.integers(1, MOMENTS[moment] + 1))
    process, moments = run.processes[victim], run.moments[victim]
    with contextlib.suppress(EOFError):
        while wanted:
            if not moments.poll(PATIENCE):
                raise InputError(f"the run did nothing for {PATIENCE:.0f} s, on the way to {moment}")
            wanted -= moments.recv() == moment
        time.sleep(float(rng.uniform(0, 1.0 if moment in ("start", "compile") else 0.05)))
    if process.is_alive():
        os.kill(process.pid, sign)


def damage(workdir: Path, rng: np.random.Generator) -> bool:
    """Damage the newest state if there is an older one; returns whether there is."""
    states = sorted(int(path.name) for path in (workdir / "checkpoints/last").glob("[0-9]*") if _is_whole(path))
    if len(states) < 2:
        return False
    newest = workdir / "checkpoints/last" / str(states[-1])
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    file = files[rng.integers(len(files))]
    data = bytearray(file.read_bytes())
    match rng.integers(3):
        case 0:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            file.write_bytes(data)
        case 1:
            file.write_bytes(data[: len(data) // 2])
        case _:
            shutil.rmtree(newest)
            newest.mkdir()
    return True


def _is_whole(state: Path) -> bool:
    return (state / "checkpoint.json").is_file()


def outcome(data: Path, workdir: Path) -> tuple[list[np.ndarray], list[Any]]:
    """Arrays of the last state and of the best parameters; their progress, and the metrics without speeds."""
    session = set_up(settings_from(config_of(data)), Workdir(str(workdir)))
    context = session.context(session.index)
    optimizer = program.make_optimizer(lambda _: 0.1, clip_norm=1.0, weight_decay=0.0)
    like, *_ = initial_state(session, context, session.method.objective(context), optimizer)
    with contextlib.closing(Checkpoints(workdir / "checkpoints")) as checkpoints:
        found = [checkpoints.restore_last(like), checkpoints.restore_best(like.params)]
    arrays = [np.asarray(leaf) for each in found if each is not None for leaf in jax.tree.leaves(each[0])]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    told = [{name: value for name, value in line.items() if name not in SPEED} for line in lines]
    return arrays, [*(each[1] for each in found if each is not None), told]


def check(data: Path, workdir: Path, whole: tuple[list[np.ndarray], list[Any]]) -> None:
    """Raise `InputError` unless a run that was killed equals the one that was not, `whole`."""
    arrays, told = outcome(data, workdir)
    steps = [line["step"] for line in told[-1] if "loss" in line]
    if steps != list(range(1, STEPS + 1)):
        raise InputError(f"metrics.jsonl has the steps {steps}; expected 1 to {STEPS}, each once")
    if told != whole[1] or any(a.tobytes() != b.tobytes() for a, b in zip(arrays, whole[0], strict=True)):
        raise InputError(f"the run in {workdir} does not equal the one that was never killed")


def kill_runs(
    folder: Path, *, n_kills: int, n_damages: int, seed: int, n_processes: int = 1
) -> Iterator[dict[str, Any]]:
    """Kill runs, and yield a record of each start: signal, moment, whether damaged before, whether completed.

    Raises:
      InputError: a run failed, or does not equal the one that was not killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.common", "igd_jax.train"])  # saves seconds of imports per start
    rng, data, log = np.random.default_rng(seed), folder / "data", folder / "log.txt"
    save(prepare("synthetic", path=None, options={"n_items": 60, "n_users": 200, "n_events": 2000}), data)
    start(context, data, folder / "whole", log, n_processes=n_processes).end()
    whole = outcome(data, folder / "whole")
    killed, damaged, n_runs = 0, 0, 0
    workdir = folder / "run 0"
    while killed < n_kills or workdir.exists():
        record: dict[str, Any] = {"is_damaged": False, "sign": "", "is_completed": False}
        if damaged < n_damages and killed and n_damages * killed >= damaged * n_kills:
            record["is_damaged"] = damage(workdir, rng)
            damaged += record["is_damaged"]
        run, is_killed = start(context, data, workdir, log, n_processes=n_processes), killed < n_kills
        if is_killed:
            sign, moment = list(SIGNALS)[killed % 2], str(rng.choice(list(MOMENTS)))
            kill(run, SIGNALS[sign], moment, rng)
        codes = run.end()
        if is_killed and any(codes):
            killed += 1
            record |= {"sign": sign, "moment": moment, "codes": codes}
        if not set(codes) <= EXIT_CODES | (LOST_CODES if n_processes > 1 else set()):
            raise InputError(f"a run ended with {codes}: {log.read_text().splitlines()[-1:]}")
        if not any(codes):
            check(data, workdir, whole)
            shutil.rmtree(workdir)
            n_runs, record["is_completed"] = n_runs + 1, True
            workdir = folder / f"run {n_runs}"
        yield record


def table(records: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Number of kills by signal and moment."""
    columns: dict[str, dict[str, int]] = {}
    for sign in SIGNALS:
        mine = [record for record in records if record["sign"] == sign]
        moments = Counter(record["moment"] for record in mine)
        columns[sign] = {"kills": len(mine), **{f"in_{moment}": moments[moment] for moment in MOMENTS}}
    return columns


def main() -> None:
    """Entry point."""
    options, begin = flags.FLAGS, time.monotonic()
    n_processes, how = options.processes, {"n_kills": options.kills, "n_damages": options.damages, "seed": options.seed}
    with TemporaryDirectory() as scratch:
        records = list(tqdm(kill_runs(Path(scratch), **how, n_processes=n_processes)))
    common.report(
        "kills" if n_processes == 1 else f"kills_of_{n_processes}",
        {"steps": STEPS, "seed": options.seed, "processes": n_processes},
        table(records),
        starts=len(records),
        newest_state_damaged=sum(record["is_damaged"] for record in records),
        runs_completed_and_equal_to_the_bit=sum(record["is_completed"] for record in records),
        seconds=round(time.monotonic() - begin),
    )


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 100, "Kills in all.", lower_bound=1)
    flags.DEFINE_integer("damages", 20, "Starts before which the newest state is damaged.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "What the random moments start from.", lower_bound=0)
    flags.DEFINE_integer("processes", 1, "Processes of each run, one of which is killed.", lower_bound=1)
    run_main(main)
