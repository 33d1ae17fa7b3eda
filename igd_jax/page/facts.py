"""What the files of a run tell of it in sentences: data, method, training, evaluation, versions."""

from collections.abc import Mapping
from typing import Any

from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.log import duration
from igd_jax.core.metrics_log import read_metrics
from igd_jax.core.remote import local_folder
from igd_jax.data.prepared import SPLITS
from igd_jax.evaluation.predictions import is_finite
from igd_jax.methods import method_class
from igd_jax.methods.base import BACKBONE

VERSIONS = ("igd_jax", "jax", "flax", "numpy")
"""Packages whose versions are told."""


def describe(
    config: Mapping[str, Any], metrics: Mapping[str, Any], env: Mapping[str, Any], workdir: Workdir
) -> dict[str, str]:
    """The run in sentences, by what they are about.

    Args:
      config: content of the config.json of an evaluation.
      metrics: content of its metrics.json.
      env: environment of the evaluation.
      workdir: folder of the run.
    """
    return {
        "Data": _data(config),
        "Method": _method(config),
        "Training": _training(config, workdir),
        "Evaluation": _evaluation(config, metrics),
        "Versions": _versions(env),
    }


def _data(config: Mapping[str, Any]) -> str:
    given = config["data"]["dir"]
    try:
        meta = read_json(local_folder(given, option="config.data.dir") / "meta.json")
        rows = ", ".join(f"{meta['rows'][split]:,} of {split}" for split in SPLITS)
        first, last = (date[:10] for date in meta["dates"])
        dropped = "; ".join(f"{reason} {count:,}" for reason, count in meta["dropped"].items()) or "nothing"
        source = f"From the source {meta['source']}: " if "source" in meta else ""
        return (
            f"{source}{meta['users']:,} users, {meta['items']:,} items, rows {rows}, "
            f"from {first} to {last}. Dropped or cut when it was prepared: {dropped}. "
            f"{meta['titles_shared_by_several_items']:,} titles are shared by several items."
        )
    except (InputError, Unreachable, KeyError, TypeError, ValueError):
        return f"{given} cannot be read now, so nothing is told of its data."


def _method(config: Mapping[str, Any]) -> str:
    method, model = config["method"], config["model"]
    args = ", ".join(f"{name} {value}" for name, value in method["args"].items() if value != "")
    if method_class(method["name"]).model_kind != BACKBONE:
        weights = "random weights of a model of its own"
    else:
        weights = f"the weights of {model['path']}" if model["path"] else f"random weights ({model['config']})"
    return (
        f"The method is {method['name']}{f' ({args})' if args else ''} over {config['identifiers']['name']}, from "
        f"{weights}, with the prompt {config['data']['prompt']} and the candidates {config['data']['candidates']}."
    )


def _training(config: Mapping[str, Any], workdir: Workdir) -> str:
    lines = read_metrics(workdir.metrics)
    steps = [line for line in lines if is_finite(line.get("examples_per_second")) and line["examples_per_second"] > 0]
    valid = [(line["valid_loss"], line["step"]) for line in lines if is_finite(line.get("valid_loss"))]
    if not steps:
        return "It was not trained here."
    train = config["train"]
    seconds = sum(train["global_batch_size"] / line["examples_per_second"] for line in steps)
    told = (
        f"It was trained for {steps[-1]['step']:,} steps of {train['global_batch_size']:,} rows with the seed "
        f"{train['seed']}, in about {duration(seconds)} without evaluations and compilation"
    )
    if not valid:
        return f"{told}."
    loss, step = min(valid)
    return f"{told}; the best loss on valid was {loss:.4f}, at step {step:,}."


def _evaluation(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    decode = config["decode"]
    return (
        f"It was asked for lists after {metrics['n']:,} {metrics['protocol']} of {config['eval']['split']} "
        f"(num_beams {decode['num_beams']}, alpha {decode['alpha']:g}): {metrics['target_absent']:,} targets are no "
        f"candidate, and {metrics['invalid']:,} results are not items."
    )


def _versions(env: Mapping[str, Any]) -> str:
    packages, commit = env.get("packages", {}), env.get("commit")
    versions = ", ".join(f"{name} {packages[name]}" for name in VERSIONS if packages.get(name))
    return (
        f"Python {env.get('python')}, {versions}, on {env.get('backend')}{f', commit {commit[:12]}' if commit else ''}."
    )
