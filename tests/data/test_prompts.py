"""Prompts are data: every byte is fixed."""

import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.prompts import render


def test_the_igd_prompt_is_that_of_the_authors_misspellings_included():
    assert render("igd", ["First, Title", "Second"], category="books") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request. \n\n### Instruction:\nGiven a list of books the user "
        "recetenly enjoy, please write a new books that the user may bought\n",
        "### User Input: \nThe user has palyed the following bookss before: First, Title, Second\n\n### Response: \n",
    )


def test_the_plain_prompt_is_one_title_a_line():
    assert render("plain", ["First, Title", "Second"], category="films") == (
        "Past films, oldest first:\nFirst, Title\nSecond\n\nNext:\n",
    )


def test_without_a_history_the_igd_prompt_says_so_in_the_authors_word():
    instruction, request = render("igd", None, category="books")
    assert instruction == render("igd", ["First"], category="books")[0]
    assert request == "### User Input: \nUnknow\n\n### Response: \n"
    assert render("plain", None, category="films") == ("Past films, oldest first:\nunknown\n\nNext:\n",)


def test_an_unknown_prompt_is_bad_input_that_names_the_known_ones():
    with pytest.raises(InputError, match="'idg'; known prompts are igd, plain"):
        render("idg", ["First"], category="books")
