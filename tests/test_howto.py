"""Examples of pages that tell how to add a file of one's own: they run as printed, copied into a file."""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import ITEM_IDS, TITLES, context_of, decode_options

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.identifiers.base import Source
from igd_jax.items.index import build_index

PAGES = Path(__file__).resolve().parents[1] / "docs" / "howto"


def examples(page: str) -> list[dict[str, Any]]:
    """What each Python example of a page defines, by name."""
    found = re.findall(r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    modules = [{"__name__": f"{page}_{number}"} for number in range(len(found))]
    for code, module in zip(found, modules, strict=True):
        exec(compile(code, f"{page}.md", "exec"), module)
    return modules


def test_the_method_and_the_edge_score():
    fading, flattened = examples("own_method")
    eos = 2
    tokens = Ragged.from_lists([[4, 9, eos], [5, 6, 9, eos]])
    context = context_of(build_index(TITLES[:2], tokens, np.array([2, 1]), candidates=np.ones(2, bool)))
    method = fading["METHOD"](last=0.5)
    objective = method.objective(context)
    np.testing.assert_allclose(objective.annotations["weight"], [1, 0.75, 0.5, 1, 5 / 6, 2 / 3, 0.5], rtol=1e-6)
    assert method.engine(context, method.make_model(context), decode_options(context.index)).top_k == 4
    with pytest.raises(InputError, match=r"config.method.args.last is 2; expected a weight"):
        fading["METHOD"](last=2)
    score = flattened["Flattened"](floor=jnp.float32(-3))
    assert score(jnp.array([-1.0, -5.0]), None, score.of_rows(None)).tolist() == [-1, -3]


def test_the_identifier(tmp_path: Path):
    (short_ids,) = examples("own_identifier")
    tokenizer = train_tokenizer(TITLES, vocab_size=300)
    made = short_ids["IDENTIFIERS"](Source(ITEM_IDS, TITLES, {}, tokenizer, tmp_path))
    assert made.vocab_size == tokenizer.vocab_size + len(ITEM_IDS)
    assert made.rows().take(np.array([1])).ids.tolist() == [tokenizer.vocab_size + 1, tokenizer.eos]
    assert made.mentions().lengths.tolist() == [1] * len(ITEM_IDS)
    assert made.names[tokenizer.vocab_size + 1] == f"<{ITEM_IDS[1]}>"


def test_the_source(tmp_path: Path):
    (source,) = examples("own_source")
    lines = ["user,item,title,stars,timestamp", "u,a,A,5,2020-01-01", "u,b,B,1,2020-01-02", "v,a,A,4,2020-01-03"]
    (path := tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    read = source["read"](path, min_rating=3.0)
    assert (read.user_ids, read.titles, read.dropped["rating below 3: events"]) == (["u", "v"], ["A"], 1)
    path.write_text("\n".join([*lines, "v,b,B,5,31/01/2020"]) + "\n")
    with pytest.raises(InputError, match=r"ratings\.csv line 5: .*31/01/2020"):
        source["read"](path)
