"""Draws the pictures of the pages, from gains that the package computes: python -m docs.pictures.

The files in docs/images are committed, since they are also shown where no pages are built; a test holds them against
this module. Their colours follow the reader's scheme, on a ground of their own.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np

from igd_jax.core.ragged import Ragged
from igd_jax.items.index import build_index

IMAGES = Path(__file__).parent / "images"

SOLD = {
    "Night Train to Oslo": 12,
    "Night Train to Rome": 3,
    "The Red Fox Returns": 8,
    "The Red Sea": 9,
    "The Silver Bell Tower": 6,
}
"""An example: titles, and how often each was a train target. Their words stand for tokens."""
BETA = 0.1

LOGP = {"Fox": -1.18, "Sea": -1.00, "Moon": -1.10}
"""An example of three siblings: log-probabilities by a model."""
SIBLING_GAINS = (0.1, 0.5, 0.9)
ALPHA = 0.2

STYLE = """<style>
  .ground { fill: #ffffff; stroke: #d0d7de }
  text { fill: #1f2328; font: 15px ui-sans-serif, system-ui, sans-serif }
  .small { fill: #59636e; font-size: 12px }
  .note { font-size: 12px }
  .edge { fill: none; stroke: #8c959f; stroke-width: 1.5 }
  .deciding { fill: #9fdccb; stroke: #12705b }
  .forced { fill: #f0f1f3; stroke: #afb8c1; stroke-dasharray: 4 3 }
  .model { fill: #b9c2cc }
  .call1 { fill: #cfe3ff; stroke: #2f6fb5 }
  .call2 { fill: #ffe0b8; stroke: #a76300 }
  .call3 { fill: #e5d6fb; stroke: #7548b8 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #151b23; stroke: #3d444d }
    text { fill: #f0f6fc }
    .small { fill: #a7b1bc }
    .deciding { fill: #0c6350; stroke: #3fc7a5 }
    .forced { fill: #262c36; stroke: #656c76 }
    .model { fill: #4b545f }
    .call1 { fill: #123d6b; stroke: #5aa2ef }
    .call2 { fill: #5b3a08; stroke: #e0a040 }
    .call3 { fill: #43296f; stroke: #b18cf0 }
  }
</style>"""


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """A picture of this size in pixels, with a title for those who hear it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    ground = f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, ground, *parts, "</svg>\n"])


def text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    """A line of text whose baseline begins, has its middle or ends at a point."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def prefixes() -> dict[tuple[str, ...], tuple[float, bool]]:
    """Gain in nats, and whether it is forced, of the last word of each beginning of a title, EOS included."""
    rows = [[*title.split(), "EOS"] for title in SOLD]
    words = sorted({word for row in rows for word in row})
    counts, everything = np.array([*SOLD.values()]), np.ones(len(rows), bool)
    ids = Ragged.from_lists([[words.index(word) for word in row] for row in rows])
    walk = build_index(list(SOLD), ids, counts, candidates=everything).walk()
    begun = [tuple(row[: n + 1]) for row in rows for n in range(len(row))]
    return dict(zip(begun, zip(walk.gain.tolist(), walk.forced.tolist(), strict=True), strict=True))


def trie() -> str:
    """The trie of the example, with the gain and the weight of each token."""
    notes = {
        begun: ("forced", f"no gain, w {BETA:g}") if forced else ("deciding", f"gain {gain:.2f}, w 1")
        for begun, (gain, forced) in prefixes().items()
    }
    head = "Five titles as a trie. Few tokens decide which title it is (green); all others follow."
    foot = f"Gain in nats, as the package computes it. Tokens without gain weigh {BETA:g} in the loss, all others 1."
    return _tree(notes, [f"sold {sold}" for sold in SOLD.values()], head, foot)


def calls() -> str:
    """The same trie, with the call of the model in which a search reads each token."""
    known = prefixes()
    notes = {}
    for begun in known:
        path = [begun[: n + 1] for n in range(len(begun))]
        call = sum(not known[each][1] for each in path)
        notes[begun] = ("forced", "not read") if begun[-1] == "EOS" else (f"call{call}", f"call {call}")
    steps = max(len(title.split()) for title in SOLD)
    last = max(int(kind[4:]) for kind, _ in notes.values() if kind != "forced")
    head = f"Whole chains per call: {last} calls of the model read all five titles; token by token, it takes {steps}."
    foot = "A call reads what may follow, each with its chain: the forced tokens up to where the trie branches again."
    return _tree(notes, [""] * len(SOLD), head, foot)


def _tree(notes: dict[tuple[str, ...], tuple[str, str]], ends_told: list[str], head: str, foot: str) -> str:
    """The example's trie; for each beginning of a title the kind of box, and a note below its last word."""
    column, line, wide, tall = 118, 74, 92, 40
    ends = [(*title.split(), "EOS") for title in SOLD]
    places = {}
    for begun in [(), *notes]:
        rows = [row for row, end in enumerate(ends) if end[: len(begun)] == begun]
        places[begun] = (54 + column * len(begun), 70 + line * (rows[0] + rows[-1]) / 2)
    parts = [_edge(places[begun[:-1]], place, wide) for begun, place in places.items() if begun]
    parts.append(text(54, places[()][1] + 5, "start", anchor="middle"))
    for begun, (kind, note) in notes.items():
        x, y = places[begun]
        box = f'x="{x - wide / 2:g}" y="{y - tall / 2:g}" width="{wide}" height="{tall}" rx="7"'
        parts += [f'<rect class="{kind}" {box}/>', text(x, y - 2, begun[-1], anchor="middle")]
        parts.append(text(x, y + 13, note, kind="note", anchor="middle"))
    for end, told in zip(ends, ends_told, strict=True):
        x, y = places[end]
        parts.append(text(x + wide / 2 + 10, y + 5, told, kind="small"))
    parts += [text(20, 30, head), text(20, 62 + line * len(ends), foot, kind="small")]
    return svg(54 + column * 6 + 40, 80 + line * len(ends), head, parts)


def _edge(start: tuple[float, float], end: tuple[float, float], wide: int) -> str:
    (x, y), (to, down) = start, end
    x, to = x + (wide / 2 if x > 60 else 22), to - wide / 2
    return f'<path class="edge" d="M{x:g} {y:g} C{(x + to) / 2:g} {y:g} {(x + to) / 2:g} {down:g} {to:g} {down:g}"/>'


def alpha() -> str:
    """What the search makes of three siblings: log-probabilities before and after alpha."""
    parts = [text(20, 30, f"Three tokens that may follow, in a search with alpha {ALPHA:g}: rare branches gain.")]
    scale, left = 240, 190
    low, high = min(SIBLING_GAINS), max(SIBLING_GAINS)
    for row, ((word, logp), gain) in enumerate(zip(LOGP.items(), SIBLING_GAINS, strict=True)):
        y, factor = 56 + 66 * row, 1 - ALPHA * (gain - low) / (high - low)
        parts += [text(20, y + 19, word), text(20, y + 36, f"gain {gain:g}, factor {factor:g}", kind="small")]
        for at, kind, value in ((0, "model", logp), (22, "deciding", logp * factor)):
            width = -value * scale
            parts.append(f'<rect class="{kind}" x="{left}" y="{y + at}" width="{width:g}" height="18" rx="3"/>')
            parts.append(text(left + width + 8, y + at + 14, f"{value:.2f}", kind="small"))
    foot = "Grey: log-probability by the model. Green: score in the search, times the factor. Shorter is better."
    return svg(700, 290, "Scores of three siblings before and after alpha", [*parts, text(20, 272, foot, kind="small")])


def pictures() -> Iterator[tuple[str, str]]:
    """Name and content of each file."""
    yield "trie.svg", trie()
    yield "alpha.svg", alpha()
    yield "calls.svg", calls()


if __name__ == "__main__":
    for name, content in pictures():
        (IMAGES / name).write_text(content, encoding="utf-8")
