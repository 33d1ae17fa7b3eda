"""What is compiled is told before."""

import jax
import numpy as np
from batches import text_batch

from igd_jax.core.types import ItemBatch
from igd_jax.training.compilations import Compilations
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import grouped


def test_each_shape_of_batches_is_told_once_before_it_is_compiled(capsys):
    short, long = text_batch([[1, 2], [3]]), text_batch([[1, 2, 3, 4], [3]])
    items = ItemBatch(np.zeros((3, 5), int), np.ones((3, 5), bool), np.zeros(3, int), np.ones(3, bool))
    compilations, watched = Compilations(), []
    for what, batches in (("step", [short, short, long]), ("step", [long]), ("evaluation", iter([short, items]))):
        watched += [(batch, capsys.readouterr().out.strip()) for batch in compilations.watch(what, batches)]
    assert [batch for batch, _ in watched] == [short, short, long, long, short, items]
    n_short, n_long = (batch.prompt.shape[1] for batch in (short, long))
    assert [told for _, told in watched] == [
        f"compiling the step of 2 rows, prompts of {n_short} tokens (1 of 2)",
        "",
        f"compiling the step of 2 rows, prompts of {n_long} tokens (2 of 2)",
        "",
        f"compiling the evaluation of 2 rows, prompts of {n_short} tokens",
        "compiling the evaluation of 3 rows of 5 items",
    ]
    [group] = grouped([jax.tree.map(np.asarray, long)], make_mesh(data=1), room=3)
    assert list(compilations.watch("groups", iter([group]), n_shapes=6)) == [group]
    told = f"compiling the groups of 2 rows, prompts of {n_long} tokens (5 of 6)"
    assert capsys.readouterr().out.strip() == told
    assert len(compilations) == 5
