"""The fingerprint of what training leaves as it is, and of what it was computed from."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from igd_jax.core.fingerprint import sample_leaves
from igd_jax.models.layers import Frozen
from igd_jax.training.frozen_fingerprint import frozen_fingerprint


def test_sample_leaves_are_all_of_a_small_array_and_some_of_a_large_one_in_its_own_dtype():
    large = jnp.arange(1_000_000, dtype=jnp.bfloat16).reshape(1000, 10, 100)
    small, some = sample_leaves([jnp.arange(5), large])
    assert small == np.arange(5, dtype=np.int32).tobytes()
    assert some == np.asarray(large).reshape(-1)[:: 1_000_000 // 64].tobytes()
    assert 2 * 64 <= len(some) < 2 * 128


def _mark(*arrays: np.ndarray, **metadata: str) -> str:
    return frozen_fingerprint(nnx.State({str(i): Frozen(jnp.asarray(x), **metadata) for i, x in enumerate(arrays)}))


def test_the_fingerprint_of_frozen_variables_changes_with_numbers_dtype_and_order():
    a, b = np.arange(300, dtype=np.float32).reshape(3, 100), np.ones(4, np.int32)
    marks = [_mark(a, b), _mark(b, a), _mark(a), _mark(), _mark(a * 1.0001, b), _mark(a.astype(np.float16), b)]
    assert len(set(marks)) == len(marks)
    assert _mark(a, b) == marks[0]


def test_the_fingerprint_of_frozen_variables_changes_with_any_one_number():
    array = np.zeros(10_000, np.float32)
    array[(damaged := 4321)] = 1e-9
    assert _mark(array) != _mark(np.where(np.arange(len(array)) == damaged, 0, array).astype(np.float32))


def test_what_was_computed_counts_as_what_it_was_made_from():
    a = np.ones(5, np.float32)
    assert _mark(a, made_from="x") == _mark(a + 1e-6, made_from="x") != _mark(a, made_from="y")
    assert _mark(a, made_from="") == _mark(a)
