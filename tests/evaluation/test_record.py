"""env.json of an evaluation: what made it."""

import json

import pytest

from igd_jax.core.errors import InputError
from igd_jax.evaluation.predictions import SCHEMA_VERSION
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord, read_record, write_record

ENVIRONMENT = {"packages": {"jax": "0.10.2", "optax": None}, "commit": "1" * 40, "command": ["evaluate", "--workdir=r"]}


@pytest.mark.parametrize("data", [None, "ff8cc51b8509d7f6"])
@pytest.mark.parametrize("checkpoint", [None, CheckpointRecord(18, "2" * 40), CheckpointRecord(18, None)])
def test_what_is_written_is_read(tmp_path, checkpoint, data):
    record = EvaluationRecord(checkpoint, data, ENVIRONMENT)
    write_record(tmp_path / "env.json", record)
    assert read_record(tmp_path / "env.json") == record


def test_the_file_has_the_keys_of_a_runs_env_json_beside_its_own(tmp_path):
    write_record(tmp_path / "env.json", EvaluationRecord(CheckpointRecord(18, "2" * 40), "3" * 16, ENVIRONMENT))
    written = json.loads((tmp_path / "env.json").read_text())
    own = {
        "predictions_schema": SCHEMA_VERSION,
        "checkpoint": {"step": 18, "commit": "2" * 40},
        "data_fingerprint": "3" * 16,
    }
    assert written == own | ENVIRONMENT


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "env.json does not exist, so nothing says what made this evaluation; run"),
        ("{", "env.json is not valid JSON"),
        ("[1]", "env.json is not a record of an evaluation"),
        ('{"commit": null}', "env.json is not a record of an evaluation .*predictions_schema.*; run"),
        ('{"predictions_schema": 1}', "env.json is not a record of an evaluation .*checkpoint.*; run"),
        ('{"predictions_schema": 1, "checkpoint": 18}', "env.json is not a record of an evaluation"),
        (
            '{"predictions_schema": 2}',
            "env.json says that predictions.jsonl has schema 2, but this igd_jax reads up to 1",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "env.json").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_record(tmp_path / "env.json")
