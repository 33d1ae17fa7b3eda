"""The tokenizer: exactly the ``tokenizer.json`` of a folder, or a byte-level BPE trained on the catalogue.

If a folder has a ``config.json``, AutoTokenizer of transformers can rebuild the tokenizer from its ``model_type`` and
change the ids, so the file itself is read. Saved folders can be opened with transformers: PreTrainedTokenizerFast gives
the same ids, and so does AutoTokenizer in a folder without ``config.json``.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import atomic_file, read_json, write_json
from igd_jax.core.log import with_progress
from igd_jax.core.ragged import NO_ROWS, Ragged
from igd_jax.data.borders import SPACE_BORDER, splits_at_borders

END_OF_TEXT = "<|endoftext|>"
"""EOS of tokenizers trained here."""

_MOST_IDS = 1 << 24
_AT_ONCE = 1 << 14
_MOST_WORDS = 1 << 18


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back.

    Attributes:
      backend: merges and vocabulary.
      eos: id at the end of every title.
      bos: id at the start of every prompt; None for families without one (Qwen).
      names: how new ids of identifiers are shown, which have no text.
    """

    backend: tokenizers.Tokenizer
    eos: int
    bos: int | None
    names: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, up to the greatest, added tokens included. A model may embed more."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint that changes with any id."""
        return fingerprint(self.backend.to_str(), str(self.eos), str(self.bos))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without BOS and EOS; a special token spelt out in a text is plain text."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_titles(self, titles: Sequence[str], before: str = "", after: str = "\n") -> Ragged:
        """Ids of ``before + title + after`` and EOS, the form used in training, weighting and decoding."""
        return Ragged.concatenate([*self.title_parts(titles, before, after)])

    def title_parts(self, titles: Sequence[str], before: str = "", after: str = "\n") -> Iterator[Ragged]:
        """The same in parts."""
        for rows in self.encode_parts(before, titles, after):
            ids: Any = np.insert(rows.ids, rows.start[1:], np.int32(self.eos))
            yield Ragged(ids, rows.start + np.arange(len(rows) + 1))

    def encode_parts(self, before: str, texts: Sequence[str], after: str) -> Iterator[Ragged]:
        """Ids of ``before + text + after``, some thousands at a time; progress is printed if it takes long.

        Encodings take many times the memory of their ids, so there are never those of all. Where the tokenizer is known
        to split at spaces, each word is tokenised once.
        """
        parts = (texts[begin : begin + _AT_ONCE] for begin in range(0, max(len(texts), 1), _AT_ONCE))
        encode = self._by_words if self.splits_at_borders else partial(map, self._as_rows)
        whole = ([before + text + after for text in part] for part in parts)
        yield from encode(with_progress(whole, "tokenised", len(texts), "titles"))

    @cached_property
    def splits_at_borders(self) -> bool:
        """Whether ids of parts are those of the whole, at the borders of `data.borders`."""
        return splits_at_borders(self.backend)

    def _as_rows(self, texts: Sequence[str]) -> Ragged:
        return Ragged.from_lists(self.encode(texts))

    def _by_words(self, parts: Iterable[Sequence[str]]) -> Iterator[Ragged]:
        """Ids of each text, cut at SPACE borders; ids of words are kept from part to part."""
        words, rows = dict[str, int](), NO_ROWS
        for texts in parts:
            if len(words) > _MOST_WORDS:
                words, rows = {}, NO_ROWS
            number, start = list[int](), [0]
            for text in texts:
                number += [words.setdefault(word, len(words)) for word in SPACE_BORDER.split(text)]
                start.append(len(number))
            rows = Ragged.concatenate([rows, self._as_rows([*islice(words, len(rows), None)])])
            yield rows.join(Ragged(np.array(number, np.int32), np.array(start, np.int64)))

    def encode_prompts(self, pieces: Sequence[Sequence[str]]) -> Ragged:
        """Ids of prompts, each piece tokenised on its own and the ids concatenated."""
        flat = iter(self.encode([piece for prompt in pieces for piece in prompt]))
        start = [] if self.bos is None else [self.bos]
        return Ragged.from_lists([sum((next(flat) for _ in prompt), start) for prompt in pieces])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return self.backend.decode([int(token) for token in ids], skip_special_tokens=True)

    def shown(self, ids: Sequence[int]) -> str:
        """Text of ids for people: with special tokens, and new ids by `names`, or as ``<330>``."""
        runs = groupby(map(int, ids), key=lambda token: self.backend.id_to_token(token) is not None)
        return "".join(
            self.backend.decode([*run], skip_special_tokens=False)
            if has_text
            else "".join(self.names.get(token, f"<{token}>") for token in run)
            for has_text, run in runs
        )

    def save(self, folder: Path) -> None:
        """Write a folder that transformers can open; ``tokenizer.json`` is written last, atomically."""
        ends: dict[str, str | None] = {"eos_token": self.backend.id_to_token(self.eos)}
        if self.bos is not None:
            ends["bos_token"] = self.backend.id_to_token(self.bos)
        write_json(folder / "tokenizer_config.json", _transformers_config(ends))
        with atomic_file(folder / "tokenizer.json") as partial:
            self.backend.save(str(partial))  # transformers would add a post-processor and further added tokens


def _transformers_config(ends: dict[str, str | None]) -> dict[str, Any]:
    """The ``tokenizer_config.json`` that the installed transformers writes for these special tokens."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # without PyTorch it prints a warning at import
    from transformers import PreTrainedTokenizerFast  # slow to import, and not needed for reading

    empty = tokenizers.Tokenizer(models.BPE())  # that file has no vocabulary, and copying one takes seconds
    with TemporaryDirectory() as scratch:
        PreTrainedTokenizerFast(tokenizer_object=empty, **ends).save_pretrained(scratch)
        names = read_json(Path(scratch) / "tokenizer_config.json")
    return names | {"tokenizer_class": "PreTrainedTokenizerFast"}  # version 4 knows only this name


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json`` of a Hugging Face folder, and EOS and BOS from ``tokenizer_config.json``.

    Raises:
      InputError: no tokenizer, or an EOS token that is not named or not in the vocabulary.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no tokenizer.json; give a Hugging Face folder, or RUN/tokenizer")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # Rust errors are plain Exceptions
        raise InputError(f"{path} is not a tokenizer ({error})") from None
    if (greatest := max(backend.get_vocab(with_added_tokens=True).values(), default=0)) >= _MOST_IDS:
        # the library makes room for every id up to the greatest, and ends the process where there is none
        raise InputError(f"{path} has the token id {greatest:,}; expected ids below {_MOST_IDS:,}; download it again")
    return _with_ends(backend, _special_tokens(folder), folder)


def _special_tokens(folder: Path) -> dict[str, str | None]:
    """``eos_token`` and ``bos_token`` from the first file that names an EOS."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            if not isinstance(found, dict):
                raise InputError(
                    f"{folder / name} holds a {type(found).__name__}; expected an object; download it again"
                )
            texts = {key: _text_of(found.get(key), key, folder / name) for key in ("eos_token", "bos_token")}
            if texts["eos_token"] is not None:
                return texts
    return {"eos_token": None, "bos_token": None}


def _text_of(token: Any, key: str, path: Path) -> str | None:
    """A special token as it is written: alone, or with how it is treated."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str | None):
        raise InputError(f"{path} has the {key} {text!r}; expected the text of a token; correct it")
    return text


def _with_ends(backend: tokenizers.Tokenizer, texts: dict[str, str | None], source: Path) -> Tokenizer:
    ids = {key: None if text is None else backend.token_to_id(text) for key, text in texts.items()}
    if ids["eos_token"] is None:
        raise InputError(
            f"the tokenizer in {source} has no end-of-text token (eos_token: {texts['eos_token']!r}); titles cannot "
            "end without one: name one of its tokens as eos_token in tokenizer_config.json"
        )
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(backend, ids["eos_token"], ids["bos_token"])


def train_tokenizer(texts: Sequence[str], *, vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE of at most `vocab_size` ids, which can encode any text."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _with_ends(backend, {"eos_token": END_OF_TEXT, "bos_token": None}, Path("the trained tokenizer"))


def describe(tokenizer: Tokenizer) -> str:
    """One line for the log."""
    ends = json.dumps({"eos": tokenizer.eos, "bos": tokenizer.bos})
    return f"tokenizer: {tokenizer.vocab_size:,} ids, {ends}, fingerprint {tokenizer.fingerprint}"
