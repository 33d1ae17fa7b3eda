"""What a recommender gives back: plain data, shown as text in a terminal and as HTML in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shortened, with_ink
from igd_jax.evaluation.predictions import Result
from igd_jax.evaluation.tables import markdown_table

COLUMNS = ("title", "items", "score")
"""What a data frame holds of a result."""
GAIN, LOGP = "240, 150, 40", "70, 130, 230"
"""Colours of the heat map, red, green and blue: of gain, and of what the model finds unlikely."""
DARKEST = 0.6
"""Opacity of the strongest colour, through which text can be read on light and dark pages."""
LONGEST_TITLE = 60
"""Maximum number of characters of a title in a table for people."""
UNLIKELY = 5.0
"""Negative log-probability in nats, of a chance of 1 in 150, from which on the colour is the strongest."""


@dataclass(frozen=True, repr=False)
class Answer:
    """Answer to a request: a list of items, best first, or scores of given ones.

    Attributes:
      results: results, best first, or in the order in which scores were asked for.
      notes: one sentence for each part of the history that was not read as given.
      score: what the score of a result is.
      id: the id of the request; None if it has none.
    """

    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    score: str = ""
    id: str | int | None = None

    def to_pandas(self) -> Any:
        """Data frame with ``title``, ``items`` (ids, a tuple) and ``score`` per result; the index is the rank, from 1.

        Raises:
          InputError: pandas is not installed.
        """
        return _frame([_columns(one) for one in self.results], COLUMNS, first=1)

    def __repr__(self) -> str:
        header, told = ["rank", "score", "items", "title"], [f"note: {note}" for note in self.notes]
        told += [f"score: {self.score}"] * bool(self.score)
        return "\n".join([markdown_table(header, self._rows()), *told])

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows())
        told = [*self.notes, *[f"score: {self.score}"] * bool(self.score)]
        head = "<tr><th>rank</th><th>score</th><th>items</th><th>title</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{cells}</tbody></table>{_paragraphs(told)}"

    def _rows(self) -> list[list[str]]:
        """The cells of both tables; titles and many items are shortened."""
        rows = []
        for rank, one in enumerate(self.results, start=1):
            title = shortened(one.title, LONGEST_TITLE) if one.items else "(unfinished)"
            rows.append([str(rank), f"{one.score:.3f}", shortened(" ".join(one.items)), title])
        return rows


class Answers(list[Answer]):
    """Answers to several requests, in their order."""

    def to_pandas(self) -> Any:
        """Data frame with a row per result of all answers.

        Its columns are ``request`` (number of the request, from 1), ``id`` (missing where a request has none), ``rank``
        (from 1 in each answer), and those of `Answer.to_pandas`.

        Raises:
          InputError: pandas is not installed.
        """
        rows = [
            {"request": number, "id": answer.id, "rank": rank, **_columns(one)}
            for number, answer in enumerate(self, start=1)
            for rank, one in enumerate(answer.results, start=1)
        ]
        return _frame(rows, ("request", "id", "rank", *COLUMNS))


@dataclass(frozen=True)
class Token:
    """A token of a title.

    Attributes:
      id: id of the token.
      text: its text.
      gain: its information gain in nats, over the candidates of training.
      forced: whether it has no gain, as nothing else could follow.
      weight: its weight in the loss of training.
      log_probability: its log-probability after a history, in nats, over the whole vocabulary; None without a history.
    """

    id: int
    text: str
    gain: float
    forced: bool
    weight: float
    log_probability: float | None = None


@dataclass(frozen=True, repr=False)
class Explanation:
    """A title, token by token.

    Attributes:
      title: the title.
      is_candidate: whether it is a candidate of training; all tokens of one that is not are without gain.
      tokens: its tokens, EOS included.
      notes: one sentence for each part of the history that was not read as given.
    """

    title: str
    is_candidate: bool
    tokens: tuple[Token, ...]
    notes: tuple[str, ...] = ()

    def to_pandas(self) -> Any:
        """Data frame with a row per token, with the attributes of `Token` as columns.

        Raises:
          InputError: pandas is not installed.
        """
        return _frame([vars(token) for token in self.tokens], tuple(Token.__dataclass_fields__))

    def __repr__(self) -> str:
        has_history = any(token.log_probability is not None for token in self.tokens)
        rows = []
        for token in self.tokens:
            forced = "forced" if token.forced else ""
            rows.append([repr(token.text), str(token.id), f"{token.gain:.6f}", forced, f"{token.weight:g}"])
            if token.log_probability is not None:
                rows[-1].append(f"{token.log_probability:.3f}")
        header = ["token", "id", "gain (nats)", "forced", "weight", *["log-probability"] * has_history]
        return "\n".join([markdown_table(header, rows), *self._told()])

    def _repr_html_(self) -> str:
        most = max([token.gain for token in self.tokens], default=0.0) or 1.0
        boxes = "".join(_box(token, most) for token in self.tokens)
        legend = (
            "Orange: information gain in nats, the more the stronger; dashed: forced, no gain. Blue, with a history: "
            "what the model finds unlikely. The numbers are gain, weight in training, and log-probability."
        )
        return f'<div style="line-height: 1.4">{boxes}</div>{_paragraphs([legend, *self._told()])}'

    def _told(self) -> list[str]:
        off = f"{self.title!r} is not a candidate of training, so none of its tokens has a gain"
        return [*[off] * (not self.is_candidate), *(f"note: {note}" for note in self.notes)]


def _box(token: Token, most: float) -> str:
    """One token of the heat map."""
    text, logp, likely = escape(with_ink(token.text)), token.log_probability, ""
    if logp is not None:
        blue = f"rgba({LOGP}, {min(-logp / UNLIKELY, 1.0) * DARKEST:.3f})"
        likely = f'<span style="display: block; background: {blue}">{logp:.2f}</span>'
    style = (
        "display: inline-block; margin: 1px; padding: 2px 4px; vertical-align: top; text-align: center; "
        f"border: 1px {'dashed' if token.forced else 'solid'} rgba(128, 128, 128, 0.6); "
        f"background: rgba({GAIN}, {token.gain / most * DARKEST:.3f})"
    )
    return (
        f'<span style="{style}" title="id {token.id}"><code style="background: none; white-space: pre">{text}'
        f"</code><br/><small>{token.gain:.3g}<br/>{token.weight:g}{likely}</small></span>"
    )


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _columns(result: Result) -> dict[str, Any]:
    """A result as a row of a data frame."""
    return {name: getattr(result, name) for name in COLUMNS}


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, first: int = 0) -> Any:
    """A data frame with some columns, whose index counts from `first`; whole numbers stay whole beside missing ones."""
    try:
        import pandas
    except ImportError:
        raise InputError("to_pandas needs pandas: pip install pandas") from None
    index, data = range(first, first + len(rows)), {}
    for name in columns:
        values = [row[name] for row in rows]
        # Else whole numbers beside a missing one become floats, which cannot hold all of them.
        data[name] = pandas.Series(values, index=index, dtype=object if None in values else None)
    return pandas.DataFrame(data, index=index)
