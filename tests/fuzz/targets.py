"""What is damaged: for each kind of input a command that reads it, and what that command may write."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from configs import common
from igd_jax import analyse, compare, evaluate, inspect, prepare, recommend, train
from tests.command import own_flags
from tests.fuzz import values


@dataclass(frozen=True)
class Target:
    """One command on valid input, and what of it is damaged.

    Attributes:
      name: for the table.
      module: the entry point.
      arguments: of the command on valid input.
      needs: inputs that are copied for it.
      damaged: patterns of the files and folders of which one is damaged, each pattern as likely.
      options: where nothing is damaged: the options that are changed, with the values that are tried.
      writes: paths that the command may change or make when it succeeds.
      result: files, or "out" for what is printed, that hold the same as without damage whenever the command succeeds;
        empty = nothing vouches for the input.
      idle: whether the network is left out: for inputs whose sizes change, it would be compiled in each case.
      signed: whether the fingerprint of a damaged prepared folder is made to fit.
      anywhere: whether new files may be made anywhere, as the options name them.
    """

    name: str
    module: ModuleType
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    result: tuple[str, ...] = ()
    idle: bool = False
    signed: bool = False
    anywhere: bool = False


ANY = (*values.NUMBERS, *values.TEXTS, *values.PATHS, *("1", "2", "3", "4", "7", "0.5", "2.0", "True", "test") * 8)
SCORES = (*values.NUMBERS, *("-1e-9", "1e-9", "0.001", "1000", "10", "-10", "1.0000001", "0.5", "0", "1", "2.0") * 2)
BY_SCORES = tuple(f"config.decode.{name}" for name in ("alpha", "temperature", "length_penalty"))

BY_PATH = ("config.data.dir", "config.model.path", "config.tokenizer.path", "config.decode.candidates")


def _options(*names: str, tried: tuple[str, ...] = ANY) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(names, tried)


FIELDS = _options(
    *(f"config.{section}.{name}" for section, fields in common.get_config().to_dict().items() for name in fields),
    *("config.method.args.beta", "config.nowhere", "config", "config.data", "configs"),
)
OF_ABSL = _options("flagfile", "undefok", "v", "verbosity", "logtostderr")

TABLES = ("run/eval/compare.md", "run/eval/compare.json")


def _options_of_prepare() -> list[str]:
    with own_flags():
        prepare.define_flags()
        return [flag.name for flag in prepare.options()]


def _prepare(source: str, path: str, *options: str) -> Target:
    folder = "/".join(path.split("/")[:2])
    given = (f"--source={source}", f"--input={path}", "--output=out", *options)
    damaged = (folder, *[f"{folder}/*"] * 5)
    return Target(f"prepare {path}", prepare, given, (folder, "out"), damaged, writes=("out",))


def _inspect(what: str, *damaged: str, **more: Any) -> Target:
    given = ("--data=data", "--tokenizer=model", "--title=Red Fox (poster)", "--json", "--candidates=candidates.txt")
    return Target(f"inspect {what}", inspect, given, ("data", "model", "candidates.txt"), damaged, **more)


def _evaluate(what: str, *damaged: str, **more: Any) -> Target:
    lists = ("run/eval/fuzz/predictions.jsonl", "run/eval/fuzz/metrics.json")
    known = {"writes": ("run/eval/fuzz", "run/cache", "data.tokens"), "result": lists}
    return Target(f"evaluate {what}", evaluate, ("--workdir=run", "--name=fuzz"), RUN, damaged, **known | more)


def _analyse(what: str, *damaged: str, **more: Any) -> Target:
    given = ("--workdir=run", "--name=a", "--max_examples=2", "--exact_examples=1")
    return Target(
        f"analyse {what}", analyse, given, RUN, damaged, writes=("run/analysis", "run/cache", "data.tokens"), **more
    )


def _evaluate_model(what: str, *damaged: str, **more: Any) -> Target:
    known = {"writes": ("new", "data.tokens"), "idle": True}
    return Target(f"evaluate {what}", evaluate, NEW, ("data", "model", "experiment.py"), damaged, **known | more)


def _recommend(what: str, *damaged: str, more: tuple[str, ...] = (), **others: Any) -> Target:
    given = ("--workdir=run", "--input=requests.jsonl", "--output=answers.jsonl", *more)
    known = {
        "needs": (*RUN, "requests.jsonl"),
        "writes": ("answers.jsonl", ".answers.jsonl.made_from", "run/cache", "data.tokens"),
        "result": ("answers.jsonl",),
    }
    return Target(f"recommend {what}", recommend, given, damaged=damaged, **known | others)


def _train(what: str, *damaged: str, **more: Any) -> Target:
    known = {"writes": ("new", "data.tokens"), "idle": True}
    return Target(f"train {what}", train, NEW, ("data", "model", "experiment.py"), damaged, **known | more)


def _resume(what: str, *damaged: str, **more: Any) -> Target:
    return Target(
        f"resume {what}", train, ("--workdir=run",), RUN, damaged, writes=("run", "data.tokens"), idle=True, **more
    )


RUN = ("data", "data.tokens", "model", "run")
NEW = ("--config=experiment.py", "--workdir=new")
DATA = ("data", *["data/*"] * 4)
SIGNED = ("data/*.parquet",)
MODEL = ("model", *["model/*"] * 3)
CHECKPOINT = ("run/checkpoints", *["run/checkpoints/best/**/*"] * 3, "run/checkpoints/last/**/*")
CHANGED = ("run/tokenizer", "run/tokenizer/*", "data.tokens", "data.tokens/*")
REST = ("run", "run/config.json", "run/config.json", "run/*", "run/*")

TARGETS = (
    _prepare("csv", "raw/csv/my.csv"),
    _prepare("d3", "raw/d3"),
    _prepare("movielens", "raw/ml-100k"),
    _prepare("movielens", "raw/ml-1m"),
    _prepare("amazon2014", "raw/amazon2014", "--k_core=0"),
    _prepare("amazon2018", "raw/amazon", "--k_core=0", "--min_items=3"),
    *(_prepare("huggingface", f"raw/hub/my.{ending}") for ending in ("parquet", "jsonl", "csv")),
    Target(
        *("prepare options", prepare),
        ("--source=synthetic", "--n_items=20", "--n_users=20", "--n_events=200", "--output=out"),
        needs=("out", "raw/csv"),
        options=_options(*_options_of_prepare(), "source", "input") | OF_ABSL,
        writes=("out",),
    ),
    Target(
        *("prepare names", prepare),
        ("--source=csv", "--input=raw/csv/my.csv", "--output=out"),
        needs=("out", "raw/csv", "data"),
        options=_options("input", "output", tried=values.PATHS),
        writes=("out",),
        anywhere=True,
    ),
    _inspect("data", *DATA, result=("out",)),
    _inspect("signed data", *SIGNED, signed=True),
    _inspect("tokenizer", "model", "model/tok*"),
    _inspect("candidates", "candidates.txt"),
    _inspect("options", options=_options("data", "tokenizer", "title", "candidates", "beta", "json") | OF_ABSL),
    Target("compare", compare, ("run/eval/a", "run/eval/b"), ("run",), ("run/eval/*", "run/eval/*/*"), writes=TABLES),
    Target(
        "compare options",
        *(compare, ("run/eval/a", "run", "--json"), ("run",)),
        options=_options("targets", "json"),
        writes=TABLES,
    ),
    _analyse("evaluation", "run/eval/a", *["run/eval/a/*"] * 4, "run/metrics.jsonl"),
    _analyse("options", options=_options("max_examples", "exact_examples", "name", "split"), anywhere=True),
    _evaluate("data", *DATA),
    _evaluate("model of a run", *MODEL),
    _evaluate("checkpoint", *CHECKPOINT),
    _evaluate("tokenizer, cache", *CHANGED),
    _evaluate("rest of a run", *REST, result=(), idle=True, anywhere=True),  # links are followed
    _evaluate("scores", options=_options(*BY_SCORES, tried=SCORES), result=()),
    _evaluate("names", options=_options("name", "workdir", tried=values.PATHS), result=(), idle=True, anywhere=True),
    _evaluate_model("signed data", *SIGNED, signed=True),
    _evaluate_model("model folder", *MODEL),
    _evaluate_model("experiment", "experiment.py"),
    _evaluate_model("options", options=FIELDS | _options("split", "choose", "choose_examples") | OF_ABSL),
    _recommend("data", *DATA),
    _recommend("checkpoint", *CHECKPOINT),
    _recommend("requests", "requests.jsonl", result=()),
    _recommend(
        *("answers", "answers.jsonl"),
        needs=(*RUN, "requests.jsonl", "answers.jsonl"),
        result=(),
        anywhere=True,  # a link is followed
    ),
    _recommend("options", options=_options("k", "input", "output", "decode_as", "json"), result=(), anywhere=True),
    Target(
        *("recommend history", recommend, ("--workdir=run", "--history=Red Fox (print)"), RUN),
        options=_options("history", "k", "json", "decode_as") | OF_ABSL,
        writes=("run/cache", "data.tokens"),
        idle=True,
    ),
    _train("data", *DATA),
    _train("signed data", *SIGNED, signed=True),
    _train("model folder", *MODEL),
    _train("experiment", "experiment.py"),
    _train("options", options=FIELDS | OF_ABSL),
    _train(
        "names", options=_options("workdir", "config.data.dir", "config.model.path", tried=values.PATHS), anywhere=True
    ),
    _resume("checkpoint", *CHECKPOINT, result=("run/metrics.jsonl",)),
    _resume("rest of a run", *REST, "run/tokenizer/*", "data.tokens/*"),
)
