"""Texts as vectors: padding counts for nothing."""

import numpy as np
import pytest
from tiny_models import CONFIGS, random_model

from igd_jax.models.text_encoder import text_reader
from igd_jax.training.mesh import make_mesh


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_title_is_pooled_over_its_own_tokens_whatever_its_padding(kind, pooling):
    read = text_reader(random_model(kind), pooling=pooling, mesh=make_mesh(data=1))
    ids, valid = np.array([[3, 4, 5, 0]], np.int32), np.array([[True, True, True, False]])
    short = read(ids[:, :3], valid[:, :3])
    np.testing.assert_allclose(read(ids, valid), short, atol=1e-5)
    assert (read(ids, np.zeros_like(valid)) == 0).all()
    other = read(np.array([[3, 4, 6]], np.int32), valid[:, :3])
    assert np.abs(other - short).max() > 1e-3
