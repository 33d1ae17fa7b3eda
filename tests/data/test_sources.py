"""What all sources have in common."""

import importlib
import inspect
import pkgutil

import pytest

from igd_jax.data import sources
from igd_jax.data.interactions import Interactions
from igd_jax.data.prepared import Prepared


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(sources.__path__)])
def test_every_source_reads_a_path_into_events_or_published_splits(name):
    signature = inspect.signature(importlib.import_module(f"{sources.__name__}.{name}").read, eval_str=True)
    first, *others = signature.parameters.values()
    assert first.name == "path"
    assert all(other.kind is other.KEYWORD_ONLY for other in others)
    assert all(other.default is not other.empty for other in others)
    assert signature.return_annotation in (Interactions, Prepared)
