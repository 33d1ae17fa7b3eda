"""The words of prompts and answers: templates, and the nouns for items.

Models are trained on these bytes, misspellings included. Never mend one; add another.
"""

from dataclasses import dataclass, replace
from typing import Any

from igd_jax.core.errors import InputError


@dataclass(frozen=True)
class Template:
    """What stands around the titles of a history, and around the one that is to be written.

    Texts may hold ``{category}``, the noun for the items, and, of `NOUNS`, ``{one}``, ``{task_verb}`` and ``{verb}``.

    Attributes:
      apart: text that is tokenised on its own, before all else; may be empty.
      lead: text before the history.
      before, after: text on both sides of each title; after the last one stands `closing` instead of `after`.
      closing: text after the history.
      unknown: text after `apart` in the counterfactual prompt, which says that the history is not known.
      quote: mark on both sides of each title, in histories and answers.
      end: text between an answer and EOS.
      has_eos: whether EOS ends a prompt, too; only for items that are not written in words.
    """

    apart: str
    lead: str
    before: str
    after: str
    closing: str
    unknown: str
    quote: str = ""
    end: str = "\n"
    has_eos: bool = False

    @property
    def around(self) -> tuple[str, str]:
        """What stands before and after the title in an answer, without EOS."""
        return self.quote, self.quote + self.end


_TASK = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request. \n\n### Instruction:\n"
)

_IGD = Template(
    apart=_TASK + "Given a list of {category} the user recetenly enjoy, "
    "please write a new {category} that the user may bought\n",
    lead="### User Input: \nThe user has palyed the following {category}s before:",
    before=" ",
    after=",",
    closing="\n\n### Response: \n",
    unknown="### User Input: \nUnknow\n\n### Response: \n",
)

_REQUEST = (
    "Given a list of {category} the user has {task_verb} before, "
    "please recommend a new {one} that the user likes to the user."
)
_NO_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n"
    "### Instruction:\n"
)

_MSL = Template(
    apart="",
    lead=_TASK + _REQUEST + "\n\n### Input:\nThe user has {verb} the following {category} before:",
    before=" ",
    after=",",
    closing="\n \n\n### Response:\n",
    unknown=_NO_INPUT + _REQUEST + "\n\n### Response:\n",
    quote='"',
    end="",
)

_PLAIN = Template(
    apart="",
    lead="Past {category}, oldest first:\n",
    before="",
    after="\n",
    closing="\n\nNext:\n",
    unknown="Past {category}, oldest first:\nunknown\n\nNext:\n",
)

_LETTER = Template(apart="", lead="", before="", after="", closing="", unknown="", end="", has_eos=True)

TEMPLATES = {
    "bigrec": replace(_MSL, before="", after=", "),  # no space before the first title
    "d3": replace(_IGD, quote='"'),
    "igd": _IGD,
    "letter": _LETTER,
    "msl": _MSL,
    "plain": _PLAIN,
}
"""By `config.data.prompt`: those of the authors, byte for byte, and ``plain``, ours, with few words, which cost time.

The training scripts of BIGRec and MSL end the first paragraph in one space, their inference scripts in two. Here it is
one space throughout, as in training.
"""
OF_TITLES = sorted(name for name, template in TEMPLATES.items() if not template.has_eos)
"""Names of those for items that are written in words."""

NOUNS = {
    "CDs": ("CD", "listened", "listened"),
    "Kindle books": ("Kindle book", "read", "read"),
    "beauty products": ("beauty product", "used", "used"),
    "books": ("book", "read", "read"),
    "clothing": ("clothing", "worn", "worn"),
    "digital music": ("digital music", "listened", "listened"),
    "electronics": ("electronic", "used", "used"),
    "foods": ("food", "eaten", "eaten"),
    "games": ("game", "played", "played"),
    "home products": ("home product", "used", "used"),
    "movies": ("movie", "watched", "watched"),
    "musical instruments": ("musical instrument", "played", "played"),
    "office products": ("office product", "used", "used"),
    "outdoor sports equipment": ("outdoor sports equipment", "played", "used"),
    "toys": ("toy", "played", "played"),
    "video games": ("video game", "played", "played"),
}
"""The published nouns of the templates bigrec and msl: of one item, and the verbs of instruction and history."""


def filled(template: str, *, category: str) -> Template:
    """A template with its nouns; one that is not in `NOUNS` loses an ``s`` for one item, and items were bought.

    Args:
      template: `config.data.prompt`.
      category: noun for the items, such as ``books``.

    Raises:
      InputError: there is no such template.
    """
    if template not in TEMPLATES:
        raise InputError(f"config.data.prompt is {template!r}; known prompts are {', '.join(sorted(TEMPLATES))}")
    one, task_verb, verb = NOUNS.get(category, (category.removesuffix("s"), "bought", "bought"))
    words = {"category": category, "one": one, "task_verb": task_verb, "verb": verb}
    found = TEMPLATES[template]
    texts: dict[str, Any] = {name: text.format(**words) for name, text in vars(found).items() if isinstance(text, str)}
    return replace(found, **texts)
