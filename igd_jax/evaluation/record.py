"""env.json of an evaluation: code, versions, machine, data and checkpoint that produced it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json, write_json
from igd_jax.evaluation.predictions import AGAIN, SCHEMA_VERSION, check_version


@dataclass(frozen=True)
class CheckpointRecord:
    """The checkpoint that was evaluated.

    Attributes:
      step: number of training steps.
      commit: commit of the code that trained it; None if that was not a checkout.
    """

    step: int
    commit: str | None


@dataclass(frozen=True)
class EvaluationRecord:
    """Origin of an evaluation.

    Attributes:
      checkpoint: checkpoint that was evaluated; None for untrained weights of a Hugging Face folder.
      data_fingerprint: fingerprint of the prepared data; None in a record that is older than this field.
      environment: result of `core.environment.environment` in the evaluating process, including its ``commit``.
      predictions_schema: schema version of the predictions.jsonl in the same folder.
    """

    checkpoint: CheckpointRecord | None
    data_fingerprint: str | None
    environment: Mapping[str, Any]
    predictions_schema: int = SCHEMA_VERSION


def write_record(path: Path, record: EvaluationRecord) -> None:
    """Write an env.json: the fields of the record, and the keys of the environment as in that of a run."""
    checkpoint = None if record.checkpoint is None else asdict(record.checkpoint)
    own = {"predictions_schema": record.predictions_schema, "checkpoint": checkpoint}
    write_json(path, own | {"data_fingerprint": record.data_fingerprint} | dict(record.environment))


def read_record(path: Path) -> EvaluationRecord:
    """Read an env.json of an evaluation.

    Raises:
      InputError: the file is missing or malformed, or the predictions have a newer schema.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, so nothing says what made this evaluation; {AGAIN}")
    try:
        environment = dict(read_json(path))
        version = int(environment.pop("predictions_schema"))
        check_version(version, source=path)
        told = environment.pop("checkpoint")
        checkpoint = None if told is None else CheckpointRecord(int(told["step"]), told["commit"])
        data = environment.pop("data_fingerprint", None)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a record of an evaluation ({error!r}); {AGAIN}") from None
    return EvaluationRecord(checkpoint, data, environment, version)
