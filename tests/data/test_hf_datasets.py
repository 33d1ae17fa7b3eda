"""What the library datasets opens: splits, subsets, several files, the Hub; faults of files are one line."""

import os
import re
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hf_files import EVENTS, FORMS, ROWS, columns_of, csv_file, csv_folder, json_file, parquet_file, parquet_folder
from source_files import events_of

from igd_jax.core.errors import InputError, Unreachable
from igd_jax.data.hf_datasets import is_hub_id
from igd_jax.data.sources import huggingface
from igd_jax.prepare import prepare

pytestmark = [
    pytest.mark.usefixtures("files_are_closed"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.mark.parametrize("write", FORMS)
def test_nothing_is_kept_beside_the_data_or_in_a_cache(tmp_path, write, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    huggingface.read(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_splits_are_chosen_by_name_and_never_mixed_silently(tmp_path):
    parts = {"train": ROWS[:2], "validation": ROWS[2:3], "test": ROWS[3:]}
    whole = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    whole.save_to_disk(tmp_path / "set")
    (tmp_path / "files").mkdir()
    for name, split in whole.items():
        pq.write_table(split.data.table, tmp_path / "files" / f"{name}.parquet")
    for path in (tmp_path / "set", tmp_path / "files"):
        with pytest.raises(InputError, match=r"has the splits train, validation, test; choose with --hf_split=train"):
            huggingface.read(path)
        with pytest.raises(InputError, match=r"--hf_split=dev: expected splits of .*: train, validation, test"):
            huggingface.read(path, hf_split="dev")
        with pytest.raises(InputError, match=r"--hf_split=test\+test"):
            huggingface.read(path, hf_split="test+test")
        assert events_of(huggingface.read(path, hf_split="test")) == EVENTS[3:]
        assert events_of(huggingface.read(path, hf_split="test+train")) == EVENTS[3:] + EVENTS[:2]


def test_subsets_are_chosen_by_name(tmp_path):
    for name, rows in (("one", ROWS[:2]), ("two", ROWS[2:])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns_of(rows)), tmp_path / name / "data.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(InputError, match=r"\['one', 'two'\]"):
        huggingface.read(tmp_path)
    assert events_of(huggingface.read(tmp_path, hf_subset="two")) == EVENTS[2:]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_files_of_other_columns_are_refused(tmp_path, ending):
    write = {"parquet": parquet_file, "csv": csv_file, "jsonl": json_file}[ending]
    path = write(tmp_path)
    path.rename(tmp_path / f"a.{ending}")
    other = datasets.Dataset.from_list([{"item": "i", "price": 5}])
    {"parquet": other.to_parquet, "csv": other.to_csv, "jsonl": other.to_json}[ending](tmp_path / f"b.{ending}")
    with pytest.raises(InputError, match=r"(?s)cannot read .*; if it has several files, are their columns the same\?"):
        huggingface.read(tmp_path)


def test_data_files_that_are_not_read_are_counted(tmp_path):
    csv_file(tmp_path)
    parquet_folder(tmp_path)
    log = huggingface.read(tmp_path)
    assert events_of(log) == EVENTS
    assert log.notes == {"data files that were not read, such as my.csv": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.parquet", b"PAR1 not parquet", "cannot read .* as a dataset"),
        (
            "my.csv",
            b"user,item,timestamp,title\nu,i,1\nu,i,1,T,more,cells\n",
            r"my\.csv line 2: 3 cells where the header has 4",
        ),
        ("my.csv", b"user,item,timestamp,title\nu,i,1,\xff\xfe\n", r"my\.csv line 2: not UTF-8 text \(byte 0xff\)"),
        ("my.csv", b"", r"my\.csv is empty; expected a line with the names of columns"),
        ("my.jsonl", b"", r"cannot read .*my\.jsonl as a dataset \(it is empty\)"),
        ("my.csv", b"user,item,timestamp,title\n", "holds no rows"),
        ("my.jsonl", b'{"user": 1\n', "cannot read .* as a dataset"),
        ("my.txt", b"words", r"is not a data file; expected a name that ends in \.parquet, \.csv"),
        ("folder/my.txt", b"words", "holds files of the kind text; expected parquet, csv or JSON lines"),
        ("folder/README.md", b"", "cannot read .* as a dataset"),
    ],
)
def test_faults_of_files_are_told(tmp_path, name, content, message, capfd):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        huggingface.read(tmp_path / Path(name).parts[0])
    assert re.search(message, str(caught.value), re.DOTALL)
    assert capfd.readouterr() == ("", "")


def test_data_files_of_a_folder_are_regular_files(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    assert events_of(huggingface.read(csv_folder(tmp_path))) == EVENTS
    os.mkfifo(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"other\.csv is not a regular file; expected a file"):
        huggingface.read(tmp_path)


# --- the Hub


@pytest.mark.parametrize("path", ["owner/name", "imdb", "Owner-1/na.me_2"])
def test_ids_of_the_hub(path):
    assert is_hub_id(Path(path))


@pytest.mark.parametrize("path", ["a/b/c", "/owner/name", "../name", "my.csv", "data/my.parquet", "my.jsonl.gz", "a b"])
def test_other_inputs_are_paths(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id(Path(path))
    with pytest.raises(InputError, match=f"--input={path} does not exist"):
        prepare("huggingface", path=Path(path), options={})


def test_only_this_source_takes_an_id_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"--input=owner/name does not exist"):
        prepare("csv", path=Path("owner/name"), options={})


def test_without_a_network_an_id_of_the_hub_is_one_clear_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unreachable, match=r"cannot read owner/name as a dataset \(ConnectionError: .*id of the Hub"):
        prepare("huggingface", path=Path("owner/name"), options={})  # tests are offline, see conftest.py
    assert capsys.readouterr().out == (
        "owner/name is not a file or folder here: reading the dataset of that name on the Hugging Face Hub\n"
    )


def test_a_path_always_wins_over_an_id_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    parquet_folder(tmp_path / "owner/name")
    assert events_of(huggingface.read(Path("owner/name"))) == EVENTS


def test_a_dataset_of_the_hub_is_read_as_a_folder_is_and_its_commit_noted(tmp_path, monkeypatch):
    folder = tmp_path / f"hub@{'0123456789' * 4}"
    folder.mkdir()
    load = datasets.load_dataset_builder

    def from_hub(path, **options):
        assert path == "owner/name"
        assert "trust_remote_code" not in options
        builder = load(str(csv_folder(folder)), **options)
        here, stream = builder.config.data_files, builder.as_streaming_dataset
        there = {name: [f"hf://{file}" for file in files] for name, files in here.items()}

        def streaming():
            builder.config.data_files = here
            splits = stream()
            builder.config.data_files = there
            return splits

        builder.config.data_files, builder.as_streaming_dataset = there, streaming
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", from_hub)
    log = huggingface.read(Path("owner/name"))
    assert events_of(log) == EVENTS
    assert log.notes == {"commit of the dataset": "0123456789" * 4}
