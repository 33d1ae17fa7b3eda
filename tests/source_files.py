"""Raw files for the tests of sources, and the events that a source made of them."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

HEADER = "user,item,timestamp,title\n"
LONG = "x" * 100_000
"""A cell that no message repeats."""


def short(value):
    """The name of a case."""
    return ascii(value)[:40]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def events_of(log):
    columns = log.user.tolist(), log.item.tolist(), log.timestamp.tolist()
    return [(log.user_ids[user], log.item_ids[item], time) for user, item, time in zip(*columns, strict=True)]


def seconds(year, month=1, day=1):
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def review(user, item, time):
    return {"overall": 5.0, "reviewerID": user, "asin": item, "style": {"Size:": " S"}, "unixReviewTime": time}


def pack(path, lines):
    return write(path, gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def amazon(folder, reviews, titles, *, name="Toys_5"):
    """Write both files; titles are (asin, title), the title left out where it is None."""
    metas = [{"asin": asin, "price": 1.0} | ({} if title is None else {"title": title}) for asin, title in titles]
    for path, records in ((f"{name}.json.gz", reviews), ("meta_Toys.json.gz", metas)):
        pack(folder / path, map(json.dumps, records))
    return folder


D3_HEADER = "user_id,item_asins,history_item_title,item_title,history_item_id,item_id,timestamp\n"
D3_ROW = '7,x,"[\'A\', ""B\'s""]",NA,"[0, 1]",2,15\n'


def published(folder, *, train=D3_ROW, info="A\t0\nB's\t1\nNA\t2\nTab\tin it\t3\n", flat=False):
    names = {split: f"Toys.{split}.csv" if flat else f"{split}/Toys_5.csv" for split in ("train", "valid", "test")}
    for split, name in names.items():
        rows = train if split == "train" else D3_ROW
        write(folder / name, D3_HEADER.encode() + (rows if isinstance(rows, bytes) else rows.encode()))
    write(folder / ("Toys.info.txt" if flat else "info/Toys_5.txt"), info)
    return folder
