"""One small event log in every form of a dataset that the library datasets reads."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"user": "u1", "item": "007", "timestamp": 1541030400, "title": "None"},
    {"user": "u2", "item": "i", "timestamp": 1541030401, "title": " NA, and more "},
    {"user": "u1", "item": "i", "timestamp": 1541030402, "title": "Another title"},
    {"user": "u2", "item": "j", "timestamp": 1541030403, "title": None},
    {"user": "u2", "item": "007", "timestamp": 1541030404, "title": None},
]
EVENTS = [("u1", "007", 1541030400), ("u2", "i", 1541030401), ("u1", "i", 1541030402), ("u2", "j", 1541030403)]
EVENTS.append(("u2", "007", 1541030404))


def columns_of(rows):
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def saved(path: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(path / "set")
    return path / "set"


def saved_dict(path: Path) -> Path:
    datasets.DatasetDict({"all": datasets.Dataset.from_list(ROWS)}).save_to_disk(path / "set")
    return path / "set"


def parquet_file(path: Path) -> Path:
    pq.write_table(pa.table(columns_of(ROWS)), path / "my.parquet")
    return path / "my.parquet"


def parquet_folder(path: Path) -> Path:
    for number, rows in enumerate((ROWS[:2], ROWS[2:])):
        pq.write_table(pa.table(columns_of(rows)), path / f"part-{number}.parquet")
    return path


def csv_file(path: Path) -> Path:
    lines = [",".join(f'"{row[name]}"' if row[name] else "" for name in ROWS[0]) for row in ROWS]
    (path / "my.csv").write_text("\n".join([",".join(ROWS[0]), *lines]))
    return path / "my.csv"


def tsv_file(path: Path) -> Path:
    lines = ["\t".join(str(row[name] or "") for name in ROWS[0]) for row in ROWS]
    (path / "my.tsv").write_text("\n".join(["\t".join(ROWS[0]), *lines]))
    return path / "my.tsv"


def csv_folder(path: Path) -> Path:
    csv_file(path)
    return path


def json_file(path: Path) -> Path:
    (path / "my [1].jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return path / "my [1].jsonl"


def packed_json_folder(path: Path) -> Path:
    (path / "my.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    return path


FORMS = [saved, saved_dict, parquet_file, parquet_folder, csv_file, tsv_file, csv_folder, json_file, packed_json_folder]
