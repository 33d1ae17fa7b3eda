"""Folders by URL: copied once, without what nobody reads; a store that fails is one line."""

import http.server
import json
import os
import shutil
import threading
import urllib.parse
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from igd_jax.core import remote
from igd_jax.core.errors import InputError, Unreachable, explain
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


def test_files_of_a_store_without_times_have_the_same_one_in_all_copies(tmp_path, monkeypatch):
    (tmp_path / "meta.json").write_text("{}")
    info = SimpleNamespace(is_file=True, base_name="meta.json", path=str(tmp_path / "meta.json"), mtime_ns=None, size=2)
    store = SimpleNamespace(get_file_info=lambda _: [info])
    files = SimpleNamespace(from_uri=lambda _: (store, ""))
    fakes = {"FileSystem": files, "FileSelector": str, "LocalFileSystem": str}
    copies = {"copy_files": lambda source, copy, *_, **__: shutil.copy(source, copy)}
    monkeypatch.setattr(remote, "fs", SimpleNamespace(**fakes, **copies))
    (copied,) = local_folder("s3://bucket/x", option="--data").iterdir()
    assert copied.stat().st_mtime_ns == 0


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("memory://x", "expected a folder, by path or by a URL of gs://, s3://, file://"),
        ("file:///none/such", "cannot be read: "),
    ],
)
def test_what_cannot_be_read_is_one_line(url, because):
    with pytest.raises(InputError, match=r"^--data is '") as raised:
        local_folder(url, option="--data")
    assert because in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_store_that_does_not_answer_is_trouble_of_the_machine_after_a_line(monkeypatch, capsys):
    monkeypatch.setattr(remote, "_PATIENCE", "scheme=http")
    url = "gs://anonymous@bucket/x?endpoint_override=localhost:1&scheme=http&retry_limit_seconds=1"
    with pytest.raises(Unreachable, match=r"^--data is 'gs://.*, which cannot be read now: .*UNAVAILABLE") as raised:
        local_folder(url, option="--data")
    assert capsys.readouterr().out.startswith(f"reading from {url}: without an answer, this ends after a minute")
    code, line = explain(raised.value)
    assert code == 74
    assert line.endswith("; check the network and the login, and start the same command again")
    assert "\n" not in line


@pytest.mark.parametrize(
    "said",
    [
        "AWS Error NETWORK_CONNECTION during HeadBucket operation: curlCode: 6, Could not resolve hostname",
        "google::cloud::Status(UNAVAILABLE: Retry policy exhausted)",
    ],
)
def test_a_store_whose_name_is_not_found_is_no_bad_input(said, monkeypatch):
    monkeypatch.setattr(remote, "fs", store_that_says(said))
    with pytest.raises(Unreachable, match="cannot be read now: "):
        local_folder("s3://bucket/x", option="--data")


def test_the_quota_of_a_store_is_not_the_memory_of_a_device(monkeypatch):
    monkeypatch.setattr(remote, "fs", store_that_says("google::cloud::Status(RESOURCE_EXHAUSTED: quota)"))
    with pytest.raises(InputError, match="cannot be read: ") as raised:
        local_folder("gs://bucket/x", option="--data")
    assert explain(raised.value)[1] == str(raised.value)


def test_a_login_that_is_missing_is_named_and_not_the_host_that_was_asked_for_one(monkeypatch):
    no_login = "Could not create a OAuth2 access token to authenticate the request. The request was not sent"
    said = f"google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of {no_login}, "
    monkeypatch.setattr(remote, "fs", store_that_says(f"{said}{'x' * 500}=Could not resolve hostname"))
    with pytest.raises(Unreachable, match=r"now: no login can be used, such as gcloud .* \('Could not create a "):
        local_folder("gs://bucket/x", option="--data")


def test_a_bucket_that_is_not_there_is_bad_input(monkeypatch):
    monkeypatch.setattr(remote, "fs", store_that_says("Bucket 'bucket' not found"))
    with pytest.raises(InputError, match='cannot be read: "Bucket '):
        local_folder("s3://bucket/x", option="--data")


def store_that_says(said: str) -> SimpleNamespace:
    """In the place of pyarrow's module: connecting fails."""

    def from_uri(_: str) -> NoReturn:
        raise OSError(said)

    return SimpleNamespace(FileSystem=SimpleNamespace(from_uri=from_uri))


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
