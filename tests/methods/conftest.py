"""Catalogue and models of the tests of BIGRec."""

import numpy as np
import pytest
from bigrec_calls import index_over, make_model
from tiny_run import TITLES

from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder


@pytest.fixture(scope="session")
def index() -> ItemIndex:
    """All titles are candidates."""
    return index_over(np.ones(len(TITLES), bool))


@pytest.fixture(scope="session")
def model() -> Decoder:
    """The model that writes."""
    return make_model(1)


@pytest.fixture(scope="session")
def base() -> Decoder:
    """The model before training."""
    return make_model(2)
