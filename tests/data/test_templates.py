"""The words of prompts and answers are data: every byte is fixed, and so are the ids that the authors' code makes."""

import json

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.errors import InputError
from igd_jax.data.prompts import render
from igd_jax.data.templates import NOUNS, TEMPLATES, filled
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer

TASK = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request. \n\n"
)
IGD_TASK = (
    f"{TASK}### Instruction:\nGiven a list of books the user recetenly enjoy, please write a new books that the user "
    "may bought\n"
)
GAMES = (
    "Given a list of video games the user has played before, please recommend a new video game that the user likes to "
    "the user."
)
GOLDEN = {
    ("igd", "books"): (
        IGD_TASK,
        "### User Input: \nThe user has palyed the following bookss before: First, Title, Second\n\n### Response: \n",
    ),
    ("d3", "books"): (
        IGD_TASK,
        '### User Input: \nThe user has palyed the following bookss before: "First, Title", "Second"\n\n'
        "### Response: \n",
    ),
    ("bigrec", "video games"): (
        f"{TASK}### Instruction:\n{GAMES}\n\n### Input:\nThe user has played the following video games before:"
        '"First, Title", "Second"\n \n\n### Response:\n',
    ),
    ("msl", "video games"): (
        f"{TASK}### Instruction:\n{GAMES}\n\n### Input:\nThe user has played the following video games before: "
        '"First, Title", "Second"\n \n\n### Response:\n',
    ),
    ("plain", "films"): ("Past films, oldest first:\nFirst, Title\nSecond\n\nNext:\n",),
    ("letter", "items"): ("First, TitleSecond",),  # of codes
}
NO_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n"
    f"### Instruction:\n{GAMES}\n\n### Response:\n"
)
UNKNOWN = {
    ("igd", "books"): (IGD_TASK, "### User Input: \nUnknow\n\n### Response: \n"),
    ("d3", "books"): (IGD_TASK, "### User Input: \nUnknow\n\n### Response: \n"),
    ("bigrec", "video games"): (NO_INPUT,),
    ("msl", "video games"): (NO_INPUT,),
    ("plain", "films"): ("Past films, oldest first:\nunknown\n\nNext:\n",),
    ("letter", "items"): ("",),
}


@pytest.fixture(scope="module")
def qwen(shared) -> Tokenizer:
    return load_tokenizer(shared / "data" / "qwen2.5-tokenizer")


def test_all_templates_have_golden_prompts():
    assert {name for name, _ in GOLDEN} == {name for name, _ in UNKNOWN} == TEMPLATES.keys()


@pytest.mark.parametrize(("template", "category"), GOLDEN)
def test_a_prompt_is_that_of_the_authors_misspellings_included(template, category):
    assert render(filled(template, category=category), ["First, Title", "Second"]) == GOLDEN[template, category]


@pytest.mark.parametrize(("template", "category"), UNKNOWN)
def test_without_a_history_a_prompt_says_so_in_the_authors_words(template, category):
    assert render(filled(template, category=category), None) == UNKNOWN[template, category]


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("igd", "Knave (Masters)\n"),
        ("d3", '"Knave (Masters)"\n'),
        ("bigrec", '"Knave (Masters)"'),
        ("msl", '"Knave (Masters)"'),
        ("plain", "Knave (Masters)\n"),
    ],
)
def test_an_answer_is_that_of_the_authors(template, answer):
    before, after = filled(template, category="books").around
    assert f"{before}Knave (Masters){after}" == answer


@pytest.mark.parametrize(
    ("template", "ids"),
    [
        ("igd", [36253, 523, 320, 44, 14199, 340, 151643]),
        ("d3", [1, 36253, 523, 320, 44, 14199, 12954, 151643]),
        ("msl", [1, 36253, 523, 320, 44, 14199, 9940, 151643]),
    ],
)
def test_with_the_tokenizer_of_qwen_a_closing_quote_and_its_newline_are_one_id(qwen, template, ids):
    around = filled(template, category="books").around
    assert lists_of(qwen.encode_titles(["Knave (Masters)"], *around)) == [ids]


def test_an_unknown_prompt_is_bad_input_that_names_the_known_ones():
    with pytest.raises(InputError, match="'idg'; known prompts are bigrec, d3, igd, letter, msl, plain"):
        filled("idg", category="books")


def test_nouns_are_those_of_the_authors_and_others_lose_an_s():
    def sentences(category: str) -> tuple[str, str]:
        [prompt] = render(filled("msl", category=category), ["First"])
        lines = prompt.split("\n")
        return lines[3], lines[6]

    assert sentences("outdoor sports equipment") == (
        "Given a list of outdoor sports equipment the user has played before, please recommend a new outdoor sports "
        "equipment that the user likes to the user.",
        'The user has used the following outdoor sports equipment before: "First"',
    )
    assert sentences("clothing") == (
        "Given a list of clothing the user has worn before, please recommend a new clothing that the user likes to the "
        "user.",
        'The user has worn the following clothing before: "First"',
    )
    assert sentences("gadgets") == (
        "Given a list of gadgets the user has bought before, please recommend a new gadget that the user likes to the "
        "user.",
        'The user has bought the following gadgets before: "First"',
    )
    assert len(NOUNS) == 16


@pytest.fixture(scope="module")
def msl(shared) -> dict:
    """Of the golden numbers of MSL: folder, tokenizer, and titles by item id."""
    info = shared / "data" / "amazon_books" / "Amazon_Books.info.txt"
    lines = (line.rpartition("\t") for line in info.read_text(encoding="utf-8").splitlines())
    return {
        "folder": shared / "golden" / "msl_bigrec",
        "tokenizer": load_tokenizer(shared / "models" / "tiny-qwen2-books"),
        "titles": {int(number): title for title, _, number in lines},
    }


@pytest.mark.parametrize("quoting", ["quoted", "unquoted"])
def test_rows_of_msl_have_the_ids_that_the_authors_code_makes(msl, quoting):
    tokenizer, titles = msl["tokenizer"], msl["titles"]
    rows = json.loads((msl["folder"] / "msl_rows.json").read_text(encoding="utf-8"))["rows"][:8]
    golden = np.load(msl["folder"] / f"msl_{quoting}.npz")
    template = filled("msl", category="books")
    around = template.around if quoting == "quoted" else ("", "")
    targets = tokenizer.encode_titles([titles[row["target"]] for row in rows], *around)
    for row, target, ids, mask in zip(rows, targets, golden["input_ids"], golden["attention_mask"], strict=True):
        pieces = render(template, [titles[item] for item in row["history"]])
        assert [*tokenizer.encode_prompts([pieces])[0], *target] == ids[mask > 0].tolist()


def test_prompts_of_msl_at_inference_differ_by_one_space_and_nothing_else(msl):
    tokenizer, titles = msl["tokenizer"], msl["titles"]
    golden = json.loads((msl["folder"] / "msl_decoding.json").read_text(encoding="utf-8"))["quoted"]["prompts"]
    for prompt in golden:
        [text] = render(filled("msl", category="books"), [titles[item] for item in prompt["history"]])
        assert tokenizer.encode([text.replace(". \n\n", ".  \n\n", 1)])[0] == prompt["prompt_ids"]
