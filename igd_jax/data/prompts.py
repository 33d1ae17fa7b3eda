"""Every word that a model is given. A template turns a history into pieces that are tokenised apart and joined as ids.

The text of a template is data: models are trained on it, misspellings included. Never mend one; add another.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.identifiers import Identifiers


def _igd(history: Sequence[str] | None, category: str) -> tuple[str, ...]:
    """The prompt of the IGD authors, byte for byte (spec/methods.md 1.1, 4.1); titles unquoted, two pieces."""
    instruction = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request. \n\n"
        "### Instruction:\n"
        f"Given a list of {category} the user recetenly enjoy, please write a new {category} that the user may bought\n"
    )
    told = "Unknow"
    if history is not None:
        told = f"The user has palyed the following {category}s before: {', '.join(history)}"
    return instruction, f"### User Input: \n{told}\n\n### Response: \n"


def _plain(history: Sequence[str] | None, category: str) -> tuple[str, ...]:
    """Ours: one title a line, oldest first, and few words around them, since every token costs time."""
    titles = "unknown" if history is None else "\n".join(history)
    return (f"Past {category}, oldest first:\n{titles}\n\nNext:\n",)


TEMPLATES: dict[str, Callable[[Sequence[str] | None, str], tuple[str, ...]]] = {"igd": _igd, "plain": _plain}


def render(template: str, history: Sequence[str] | None, *, category: str) -> tuple[str, ...]:
    """The pieces of one prompt.

    Args:
      template: `config.data.prompt`.
      history: titles, oldest first; None for the counterfactual prompt, which says that they are not known.
      category: the noun for the items, e.g. ``books``.

    Raises:
      InputError: there is no such template.
    """
    if template not in TEMPLATES:
        raise InputError(f"config.data.prompt is {template!r}; known prompts are {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template](history, category)


class Prompts:
    """What stands around a history, as ids."""

    def __init__(self, template: str, category: str, tokenizer: Tokenizer, identifiers: Identifiers, cache: Path):
        self._template, self._category, self._tokenizer, self._identifiers = template, category, tokenizer, identifiers

    def of_items(self, history: Ragged) -> Ragged:
        """Prompts after histories of items, oldest first."""
        texts = self._identifiers.texts
        if texts is not None:
            return self.of_texts([[texts[i] for i in history[row].tolist()] for row in range(len(history))])
        mentions = self._identifiers.mentions()
        lead, closing = ([], [])
        rendered = render(self._template, ["\0"], category=self._category)
        before, _, after = "".join(rendered).partition("\0")
        lead, closing = self._tokenizer.encode([before, after])
        return Ragged.from_lists(
            [
                [*lead, *(t for i in history[row].tolist() for t in mentions[i].tolist()), *closing]
                for row in range(len(history))
            ]
        )

    def of_texts(self, histories: Sequence[Sequence[str]]) -> Ragged:
        """Prompts after histories of any texts, oldest first."""
        return self._tokenizer.encode_prompts(
            [render(self._template, history, category=self._category) for history in histories]
        )

    def without_history(self) -> Int[np.ndarray, " ids"]:
        """The prompt with its history removed."""
        return self._tokenizer.encode_prompts([render(self._template, None, category=self._category)])[0]
