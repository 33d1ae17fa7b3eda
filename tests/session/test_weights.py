"""Which arguments a run may be decoded with."""

import pytest

from igd_jax.core.errors import InputError
from igd_jax.methods import load_method, with_defaults
from igd_jax.session.weights import check_decoding_args


def test_an_argument_that_is_newer_than_a_run_has_its_default_there():
    def check(trained, given):
        check_decoding_args(load_method("bigrec", {}), *(with_defaults("bigrec", args) for args in (trained, given)))

    check({"beams": 4}, {"beams": 5, "prompt_loss": False})
    check({"prompt_loss": False}, {})
    with pytest.raises(InputError, match=r"prompt_loss is True, but the run was trained with False, and decoding does"):
        check({}, {"prompt_loss": True})
