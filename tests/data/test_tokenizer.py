"""Ids are what tokenizer.json says; EOS and BOS stand only where they are put."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data import tokenizer as program
from igd_jax.data.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer, train_tokenizer

TITLES = ["The Salt Harbour Saga, Volume 1", "The Salt Harbour Saga, Volume 2", "Löwe & Bär: Der Weg", "Übermorgen"]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TITLES, vocab_size=300)


@pytest.fixture
def folder(trained, tmp_path):
    """A saved tokenizer that a test may spoil."""
    trained.save(tmp_path)
    return tmp_path


def _edit_names(folder, **names) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "The Salt Harbour",
        "naïve 🦊 fox \U0001f468\u200d\U0001f469\u200d\U0001f467",
        " two  spaces ",
        "日本語\n",
        "\x00\x7f",
        "",
    ],
)
def test_a_trained_tokenizer_gives_back_any_text(trained, text):
    assert trained.decode(trained.encode([text])[0]) == text


def test_training_merges_within_its_size_and_is_the_same_every_time(trained):
    assert trained.vocab_size == 300
    assert train_tokenizer(TITLES, vocab_size=300).fingerprint == trained.fingerprint
    assert len(trained.encode([TITLES[0]])[0]) < len(TITLES[0]) / 2


@pytest.mark.parametrize("folder", [None, "data/qwen2.5-tokenizer"])
def test_titles_have_the_ids_of_the_whole_though_each_word_is_tokenised_once(trained, request, folder, monkeypatch):
    tokenizer = load_tokenizer(request.getfixturevalue("shared") / folder) if folder else trained
    rng = np.random.default_rng(0)
    signs = [*"   aabS.,'(1\n\t\r\u00a0\u3000\x1c\x85\u200b", "\u0301", "don't", "日本", "🦊\u200d"]
    titles = [*TITLES, "", " ", "two  spaces ", *("".join(rng.choice(signs, 9)) for _ in range(3000))]
    monkeypatch.setattr(program, "_AT_ONCE", 700)
    monkeypatch.setattr(program, "_MOST_WORDS", 2000)
    assert tokenizer.splits_at_borders
    assert lists_of(tokenizer.encode_titles(titles)) == [
        [*ids, tokenizer.eos] for ids in tokenizer.encode([title + "\n" for title in titles])
    ]
    found = Ragged.concatenate([*tokenizer.encode_parts(" ", titles, "),")])
    assert lists_of(found) == tokenizer.encode([" " + title + ")," for title in titles])
    encode, encoded = Tokenizer.encode, []
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts))
    tokenizer.encode_titles(["a bc d", "e bc d", "a bc d"])
    assert encoded == ["a", " bc", " d\n", "e"]


def test_a_saved_tokenizer_loads_as_the_same(trained, folder):
    loaded = load_tokenizer(folder)
    assert loaded.encode(TITLES) == trained.encode(TITLES)
    assert (loaded.eos, loaded.bos, loaded.fingerprint) == (trained.eos, None, trained.fingerprint)


def test_the_fingerprint_tells_tokenizers_apart(trained):
    assert train_tokenizer(TITLES, vocab_size=299).fingerprint != trained.fingerprint
    assert Tokenizer(trained.backend, trained.eos, bos=5).fingerprint != trained.fingerprint


def test_titles_end_in_newline_and_one_eos(trained):
    rows = trained.encode_titles(TITLES)
    for row, title in zip(lists_of(rows), TITLES, strict=True):
        assert row == [*trained.encode([title + "\n"])[0], trained.eos]
        assert row.count(trained.eos) == 1


def test_a_special_token_spelt_out_in_a_title_is_plain_text(trained, folder):
    for tokenizer in (trained, load_tokenizer(folder)):
        ids = tokenizer.encode([f"Ends {END_OF_TEXT} here"])[0]
        assert tokenizer.eos not in ids
        assert tokenizer.decode(ids) == f"Ends {END_OF_TEXT} here"


def test_decoding_leaves_special_tokens_out(trained):
    assert trained.decode([*trained.encode(["Wanderlust\n"])[0], trained.eos, trained.eos]) == "Wanderlust\n"


def test_pieces_of_a_prompt_are_tokenised_apart(trained):
    pieces = [("The Sa", "lt Harbour"), ("Saga",), ()]
    expected = [[i for piece in prompt for i in trained.encode([piece])[0]] for prompt in pieces]
    assert lists_of(trained.encode_prompts(pieces)) == expected
    assert expected[0] != trained.encode(["The Salt Harbour"])[0]  # one piece would merge across the border


def test_bos_starts_each_prompt_once_and_no_title(folder, trained):
    _edit_names(folder, eos_token=END_OF_TEXT, bos_token="!")
    tokenizer = load_tokenizer(folder)
    plain = lists_of(trained.encode_prompts([("The", " Bay"), ("Saga",)]))
    assert lists_of(tokenizer.encode_prompts([("The", " Bay"), ("Saga",)])) == [[tokenizer.bos, *row] for row in plain]
    assert lists_of(tokenizer.encode_titles(TITLES)) == lists_of(trained.encode_titles(TITLES))


def test_a_saved_bos_is_loaded_again(folder, tmp_path):
    _edit_names(folder, eos_token={"content": END_OF_TEXT}, bos_token={"content": "!"})
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").bos == tokenizer.bos == tokenizer.backend.token_to_id("!")


def test_eos_may_be_named_in_special_tokens_map(folder):
    (folder / "tokenizer_config.json").rename(folder / "special_tokens_map.json")
    _edit_names(folder, model_max_length=512)
    assert load_tokenizer(folder).eos == load_tokenizer(folder).backend.token_to_id(END_OF_TEXT)


@pytest.mark.parametrize("names", [{}, {"eos_token": None}, {"eos_token": "</s>"}])
def test_a_tokenizer_without_eos_is_bad_input(folder, names):
    _edit_names(folder, **names)
    with pytest.raises(InputError, match="no end-of-text token"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([1], r"tokenizer_config.json holds a list; expected an object"),
        ({"eos_token": 7}, r"tokenizer_config.json has the eos_token 7; expected the text of a token; correct it"),
        ({"eos_token": {"content": ["a"]}}, r"has the eos_token \['a'\]; expected the text of a token"),
    ],
)
def test_special_tokens_that_are_no_text_are_bad_input(folder, names, message):
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_tokenizer(folder)


def test_ids_count_up_to_the_greatest_whatever_is_left_out(folder):
    """A model that embeds as many ids as there are would be asked for one that it does not have."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"]["!"] = 5000
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(folder).vocab_size == 5001


def test_a_folder_without_a_tokenizer_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_file_is_bad_input(folder):
    (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(folder)


def test_truncation_and_padding_set_in_the_file_are_ignored(folder, trained):
    backend = trained.backend.from_str(trained.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    backend.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).encode(TITLES) == trained.encode(TITLES)


@pytest.mark.parametrize("bos", [None, "<bos>"])
def test_transformers_opens_a_saved_folder_with_the_same_ids_and_ends(trained, tmp_path, bos):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    backend = trained.backend.from_str(trained.backend.to_str())
    if bos is not None:
        backend.add_special_tokens([bos])
    tokenizer = Tokenizer(backend, trained.eos, bos=bos and backend.token_to_id(bos))
    tokenizer.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    for theirs in (AutoTokenizer, PreTrainedTokenizerFast):
        opened = theirs.from_pretrained(tmp_path)
        assert opened(TITLES)["input_ids"] == trained.encode(TITLES)
        assert (opened.eos_token_id, opened.bos_token_id) == (tokenizer.eos, tokenizer.bos)
        assert len(opened) == tokenizer.vocab_size


def test_saving_twice_changes_nothing_and_a_failed_save_leaves_the_folder_whole(trained, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trained.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("igd_jax.core.io.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        train_tokenizer(TITLES, vocab_size=280).save(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_loads_and_encodes_does_not_import_transformers(folder):
    program = (
        "import sys; from pathlib import Path; from igd_jax.data.tokenizer import load_tokenizer; "
        "load_tokenizer(Path(sys.argv[1])).encode(['a']); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)


def test_golden_titles_get_the_ids_of_the_file_whatever_the_model_type_says(shared, tmp_path):
    from transformers import PreTrainedTokenizerFast

    source = shared / "models" / "tiny-qwen2-books"
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):  # config.json says qwen2
        shutil.copyfile(source / name, tmp_path / name)
    golden = json.loads((shared / "golden/igd_amazon_books/information_gain.json").read_text(encoding="utf-8"))
    titles = [item["title"] for item in golden["items"]]
    rows = lists_of(load_tokenizer(tmp_path).encode_titles(titles))
    assert rows == [item["tokens"] for item in golden["items"]]
    load_tokenizer(tmp_path).save(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert rows == [[*ids, theirs.eos_token_id] for ids in theirs([title + "\n" for title in titles])["input_ids"]]


def test_an_id_that_no_vocabulary_has_is_bad_input_and_not_the_end_of_the_process(folder, tmp_path):
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    told["model"]["vocab"]["!"] = 2**31
    (tmp_path / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError, match=r"has the token id 2,147,483,648; expected ids below 16,777,216"):
        load_tokenizer(tmp_path)


def test_ids_are_shown_with_special_tokens_and_those_without_a_text_by_name_or_number():
    tokenizer = train_tokenizer(["Rød grød"], vocab_size=300)
    new = tokenizer.vocab_size
    ids = [new, new + 1, *tokenizer.encode(["Rød"])[0], new + 7, tokenizer.eos]
    assert tokenizer.shown(ids) == f"<{new}><{new + 1}>Rød<{new + 7}><|endoftext|>"
    assert replace(tokenizer, names={new + 1: "<a_1>"}).shown(ids) == f"<{new}><a_1>Rød<{new + 7}><|endoftext|>"
    assert tokenizer.shown([]) == ""
