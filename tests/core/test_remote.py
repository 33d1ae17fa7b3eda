"""Folders by URL: copied once, without what nobody reads; a store that fails is one line."""

import http.server
import json
import os
import threading
import urllib.parse
from pathlib import Path

import pytest

from igd_jax.core import remote
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import version_of
from igd_jax.core.remote import local_folder


@pytest.fixture(autouse=True)
def forgotten():
    remote._copied.cache_clear()


def test_a_path_is_itself():
    assert local_folder("runs/data", option="--data") == Path("runs/data")


def test_a_folder_is_copied_once_without_what_nobody_reads(tmp_path, capsys):
    (tmp_path / "meta.json").write_text("{}")
    (tmp_path / "weights.bin").write_text("")
    (tmp_path / "below").mkdir()
    first, second = (local_folder(f"file://{tmp_path}", option="--data") for _ in range(2))
    assert first == second != tmp_path
    assert first.parent.name.startswith("igd_jax-"), "what is put beside the copy is removed with it"
    assert [path.name for path in first.iterdir()] == ["meta.json"]
    assert capsys.readouterr().out == f"copied 1 files, 0.0 MB, from file://{tmp_path}, 2 other entries left\n"


def test_a_copy_has_the_times_of_change_of_the_store(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    os.utime(tmp_path / "meta.json", ns=(1_600_000_000_000_000_000,) * 2)
    copy = local_folder(f"file://{tmp_path}", option="--data")
    assert version_of(str(copy)) == version_of(str(tmp_path))


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("memory://x", "expected a folder, by path or by a URL of gs://, s3://, file://"),
        ("file:///none/such", "cannot be read: "),
        ("gs://anonymous@bucket/x?endpoint_override=localhost:1&scheme=http&retry_limit_seconds=1", "cannot be read: "),
    ],
)
def test_what_cannot_be_read_is_one_line(url, because, monkeypatch):
    monkeypatch.setattr(remote, "_PATIENCE", "scheme=http")
    with pytest.raises(InputError, match=r"^--data is '") as raised:
        local_folder(url, option="--data")
    assert because in str(raised.value)
    assert "\n" not in str(raised.value)


OBJECTS = {"data/meta.json": b"{}", "data/train.parquet": b"PAR1"}


class Store(http.server.BaseHTTPRequestHandler):
    """The two calls of Google's JSON interface that a copy takes: a list of objects, and the bytes of one."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        given = urllib.parse.parse_qs(url.query)
        name = (
            urllib.parse.unquote(url.path).partition("/o/")[2] or urllib.parse.unquote(url.path).partition("bucket/")[2]
        )
        if url.path.endswith("/o"):
            prefix = given.get("prefix", [""])[0]
            body = json.dumps({"items": [self.about(each) for each in OBJECTS if each.startswith(prefix)]}).encode()
        elif name not in OBJECTS:
            self.send_error(404)
            return
        elif given.get("alt") == ["media"] or "/storage/v1/" not in url.path:
            body = OBJECTS[name]
        else:
            body = json.dumps(self.about(name)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def about(self, name: str) -> dict[str, str]:
        return {"kind": "storage#object", "bucket": "bucket", "name": name, "size": str(len(OBJECTS[name]))}

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_bucket_is_read_over_the_network(monkeypatch):
    monkeypatch.setattr(remote, "_PATIENCE", "retry_limit_seconds=5")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"endpoint_override=127.0.0.1:{server.server_port}&scheme=http"
        folder = local_folder(f"gs://anonymous@bucket/data?{place}", option="--data")
        server.shutdown()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"meta.json": b"{}", "train.parquet": b"PAR1"}
