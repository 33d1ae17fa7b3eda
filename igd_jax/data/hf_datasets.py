"""Opens datasets with the datasets library: a saved dataset, parquet, csv or JSON lines files, or a Hub id.

Files and the Hub are streamed. Of parquet files only the requested columns are fetched, and nothing is kept on disk.
Code of a dataset is never run.
"""

import glob
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.log import say
from igd_jax.core.remote import is_unreachable
from igd_jax.core.shown import LONGEST_LINE, shortened
from igd_jax.data.csv_tables import read_strictly

KINDS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}
"""Readers by file name suffix."""

_PACKED = (".gz", ".bz2", ".xz", ".zst")
_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class TableDataset:
    """Tables of a dataset, split by split.

    Attributes:
      path: input path or Hub id.
      what: description of the format.
      splits: number of rows by split, None if unknown.
      schema: columns of the first rows.
      notes: facts to be recorded with the data.
      narrow: function from column names to splits with only these; each yields tables by ``with_format("arrow").iter``.
    """

    path: Path
    what: str
    splits: dict[str, int | None]
    schema: pa.Schema
    notes: dict[str, str | int]
    narrow: Callable[[list[str]], Mapping[str, Any]]

    def tables(self, splits: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield (split, its next rows), in order.

        Raises:
          InputError: a file is damaged or no longer reachable.
        """
        with _in_one_line(self.path, "; if it has several files, are their columns the same?"):
            narrowed = self.narrow(list(columns))
            for split in splits:
                for table in narrowed[split].with_format("arrow").iter(batch_size=_BATCH_ROWS):
                    yield split, table


@contextmanager
def opened(path: Path, subset: str | None) -> Iterator[TableDataset]:
    """Open a path or, if it does not exist, a Hub id.

    Args:
      subset: configuration of a folder or Hub dataset; None if it has only one.

    Raises:
      InputError: there is nothing readable; any error of the library is reported in one line.
      Unreachable: the Hub does not answer.
    """
    with TemporaryDirectory() as scratch:  # for the locks of the library
        hint = "" if path.exists() else "; no file or folder has that name, so it was taken for an id of the Hub"
        with _in_one_line(path, hint):
            dataset = _open(path, subset, scratch)
        yield dataset


@contextmanager
def _in_one_line(path: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # from files, the network, the Hub, pandas, pyarrow and datasets itself
        reason = shortened(f"{type(error).__name__}: {error}", LONGEST_LINE // 2)
        if isinstance(error, StopIteration):  # what datasets raises for an empty file of JSON lines
            reason = "it is empty"
        kind = Unreachable if is_unreachable(error) else InputError
        raise kind(f"cannot read {path} as a dataset ({reason}){hint}") from None


def is_hub_id(path: Path) -> bool:
    """Whether an input looks like a Hub id, ``owner/name`` or ``name``, and not like a file."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path.as_posix()) is not None and kind_of(path) is None


def kind_of(path: Path) -> str | None:
    """Reader for a data file, by its name; None for other files."""
    ends = [end for end in path.suffixes if end not in _PACKED]
    return KINDS.get(ends[-1]) if ends else None


def _open(path: Path, subset: str | None, scratch: str) -> TableDataset:
    import datasets  # takes half a second

    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # errors are reported here, once
    is_saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if subset is not None and (is_saved or path.is_file()):
        raise InputError(f"--hf_subset={subset}: {path} is a single {'dataset' if is_saved else 'file'}; leave it out")
    if is_saved:
        return _open_saved(path)
    if path.is_file():
        if (kind := kind_of(path)) is None:
            raise InputError(f"{path} is not a data file; expected a name that ends in {', '.join(KINDS)}")
        options: dict[str, Any] = {"path": kind, "data_files": {"train": glob.escape(str(path.absolute()))}}
        options |= {"sep": "\t"} if ".tsv" in path.suffixes else {}
    elif path.is_dir():
        _refuse_special_files(path)
        options = {"path": str(path.absolute()), "name": subset}
    else:
        say(f"{path} is not a file or folder here: reading the dataset of that name on the Hugging Face Hub")
        options = {"path": path.as_posix(), "name": subset}
    return _open_stream(path, {**options, "cache_dir": scratch})


def _refuse_special_files(folder: Path) -> None:
    """Raise `InputError` for a data file that is a device or a pipe, which the library would read without end."""
    for file in folder.rglob("*"):
        if kind_of(file) and file.exists() and not file.is_file() and not file.is_dir():
            raise InputError(f"{file} is not a regular file; expected a file")


def _open_saved(path: Path) -> TableDataset:
    import datasets

    saved = datasets.load_from_disk(str(path))
    splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    if not splits:
        raise InputError(f"{path} is a saved dataset without splits")
    return TableDataset(
        path=path,
        what="a saved dataset",
        splits={name: len(split) for name, split in splits.items()},
        schema=next(iter(splits.values())).features.arrow_schema,
        notes={},
        narrow=lambda columns: {name: split.select_columns(columns) for name, split in splits.items()},
    )


def _open_stream(path: Path, options: dict[str, Any]) -> TableDataset:
    import datasets

    builder = datasets.load_dataset_builder(**options)
    if (kind := builder.name) not in KINDS.values():
        raise InputError(f"{path} holds files of the kind {kind}; expected parquet, csv or JSON lines")
    if kind == "csv":
        read_strictly(builder, None)
    splits = builder.as_streaming_dataset()
    first = next(iter(splits.values())).with_format("arrow")
    head = next(first.iter(batch_size=1), None)
    if head is None:
        raise InputError(f"{path} holds no rows")

    def narrow(columns: list[str]) -> Mapping[str, Any]:
        if kind == "json":
            return {name: split.select_columns(columns) for name, split in splits.items()}
        if kind == "csv":
            read_strictly(builder, columns)
            return builder.as_streaming_dataset()
        return datasets.load_dataset_builder(**options, columns=columns).as_streaming_dataset()

    files = [str(file) for split_files in builder.config.data_files.values() for file in split_files]
    return TableDataset(
        path=path,
        what=f"{kind}, {len(files):,} file{'s' * (len(files) > 1)}",
        splits=dict.fromkeys(splits),
        schema=head.schema,
        notes=_note_files(path, files),
        narrow=narrow,
    )


def _note_files(path: Path, files: list[str]) -> dict[str, str | int]:
    """The commit of Hub files, or the number of data files in a folder that are not read."""
    commits = {found[1] for file in files if (found := re.match(r"hf://.*@([0-9a-f]{40})/", file))}
    if commits:
        return {"commit of the dataset": ", ".join(sorted(commits))}
    there = {str(file.absolute()) for file in path.rglob("*") if file.is_file() and kind_of(file)}
    beside = sorted(there - set(files))
    return {f"data files that were not read, such as {Path(beside[0]).name}": len(beside)} if beside else {}
