"""Csv files of a dataset as tables of text, read as strictly as by the csv source.

The library datasets has pandas read them, to which a quote that is never closed, or a row of more or fewer cells than
the header, is no error: cells swallow rows or shift, and nothing is said.
"""

import codecs
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from igd_jax.core.errors import InputError
from igd_jax.core.shown import listed
from igd_jax.data.source_io import csv_table_of, lines_of

_BATCH_ROWS = 20_000
_DIALECT = ("quotechar", "quoting", "escapechar", "doublequote")
"""Settings of pandas that `csv.reader` has by the same names and values."""
_REFUSED = ("names", "skiprows", "nrows", "skipfooter", "comment", "dialect", "lineterminator")
"""Settings of pandas that decide what is read, and have no counterpart."""


def read_strictly(builder: Any, columns: Sequence[str] | None) -> None:
    """Have a builder of csv files, of the library datasets, yield these columns (None: all), which stay text.

    Raises:
      InputError: the dataset's card asks for another way of reading than by a header and rows.
    """
    config = builder.config
    others = [name for name in _REFUSED if getattr(config, name)]
    if others := others + ["header"] * (config.header not in ("infer", 0)):
        raise InputError(
            f"{builder.base_path or 'the dataset'}: its card sets {', '.join(others)} for csv files, which is not "
            "understood; give files whose first line has the names of columns"
        )

    def tables(files_iterables: Iterable[Iterable[str]], **_: Any) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        for shard, files in enumerate(files_iterables):
            for file in files:
                for number, table in enumerate(_tables(file, config, columns)):
                    yield (shard, number), table

    builder._generate_tables = tables  # what its datasets read from; that of the class calls pandas


def _tables(file: str, config: Any, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """The rows of one file, a path or an address such as ``gzip://my.csv::hf://...``, by the settings of a builder."""
    from datasets.utils.file_utils import xopen  # takes half a second

    name = file if file.startswith("zip://") else file.rpartition("::")[2]
    path = Path(file) if Path(file).is_file() else name
    encoding = codecs.lookup(config.encoding or "utf-8").name
    dialect = {setting: getattr(config, setting) for setting in _DIALECT} | {"skipinitialspace": True}  # as source csv
    with xopen(file, "rb") as opened:
        raw = opened if isinstance(opened, io.BufferedReader) else io.BufferedReader(opened)
        header, rows = csv_table_of(lines_of(raw, path, encoding=encoding), path, delimiter=config.sep, **dialect)
        if not header:
            raise InputError(f"{name} is empty; expected a line with the names of columns, and one per event")
        names = header if columns is None else columns
        if missing := [column for column in names if column not in header]:
            raise InputError(
                f"cannot read {name} (no column {', '.join(missing)}; it has {listed(header)}); if it has several "
                "files, are their columns the same?"
            )
        places = range(len(header)) if columns is None else [header.index(column) for column in columns]
        while cells := [row for _, row in islice(rows, _BATCH_ROWS)]:
            yield pa.Table.from_arrays(
                [pa.array([row[place] for row in cells], pa.string()) for place in places], names=list(names)
            )
