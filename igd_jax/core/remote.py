"""Folders of an object store, named by URL: copied to this machine once per process, then read like any other."""

import atexit
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from pyarrow import ArrowException, fs

from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.io import is_url
from igd_jax.core.log import say
from igd_jax.core.shown import shown

SCHEMES = ("gs", "s3", "file")
READ = (".jinja", ".json", ".model", ".parquet", ".safetensors", ".txt")
"""Endings of the files that prepared folders, models and tokenizers are read from; others are not copied."""
_PATIENCE = "retry_limit_seconds=60"
"""For Google's library, which otherwise tries for 15 minutes."""
_NO_LOGIN = "Could not create a OAuth2 access token"
"""Google's library where it finds no login, or cannot use it; it goes on as if nobody answered."""
_NO_ANSWER = re.compile("UNAVAILABLE|NETWORK_CONNECTION|ConnectionError|ConnectError|(?i:could(n't| not) resolve)")
"""In errors of the libraries that ask over the network: nobody answers."""


def is_unreachable(error: BaseException) -> bool:
    """Whether a library's error says that nobody answers over the network, and not that the answer is bad."""
    return _NO_ANSWER.search(f"{type(error).__name__}: {error}") is not None


def local_folder(given: str, *, option: str) -> Path:
    """The folder that `option` gives by path or by URL; that of a URL is a copy, removed when the process ends.

    Raises:
      InputError: the scheme of the URL is unknown, or it names no folder that can be read.
      OSError: the store does not answer, or copying failed.
    """
    if not is_url(given):
        return Path(given)
    scheme = given.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise InputError(f"{option} is {shown(given)}; expected a folder, by path or by a URL of {known}")
    try:
        return _copied(given)
    except (FileNotFoundError, ArrowException, _Unreadable) as error:
        told, why = f"{option} is {shown(given)}, which cannot be read", str(error)
        if (at := why.find(_NO_LOGIN)) >= 0:
            login = "no login can be used, such as gcloud auth application-default login makes"
            raise Unreachable(f"{told} now: {login} ({shown(why[at:])})") from None
        kind, now = (Unreachable, " now") if is_unreachable(error) else (InputError, "")
        raise kind(f"{told}{now}: {shown(why)}") from None


class _Unreadable(OSError):
    """A store that does not answer, or a folder without a file to read."""


@cache
def _copied(url: str) -> Path:
    """Copy the files of a folder, with their times of change, but not its folders."""
    patient = url if not url.startswith("gs:") else f"{url}{'&' if '?' in url else '?'}{_PATIENCE}"
    if not url.startswith("file:"):
        say(f"reading from {url}: without an answer, this ends after a minute or two")
    try:
        store, path = fs.FileSystem.from_uri(patient)  # which asks S3 for the region of a bucket
        found = store.get_file_info(fs.FileSelector(path))
    except OSError as error:
        raise _Unreadable(str(error)) from None
    files = [info for info in found if info.is_file and info.base_name.endswith(READ)]
    if not files:
        raise _Unreadable(f"there is no file to read in it, of {len(found)} entries")
    around = Path(tempfile.mkdtemp(prefix="igd_jax-"))  # of what is put beside the copy, too
    atexit.register(shutil.rmtree, around, ignore_errors=True)
    (folder := around / "copy").mkdir()
    for info in files:
        fs.copy_files(info.path, str(copy := folder / info.base_name), store, fs.LocalFileSystem(), use_threads=False)
        # For `core.fingerprint.version_of`: equal in later processes, also where a store has no times.
        os.utime(copy, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
    left = f", {len(found) - len(files)} other entries left" if len(found) > len(files) else ""
    say(f"copied {len(files)} files, {sum(info.size for info in files) / 1e6:,.1f} MB, from {url}{left}")
    return folder
