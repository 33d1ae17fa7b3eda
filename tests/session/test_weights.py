"""Which arguments a run may be decoded with, and the method that trained it."""

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.methods import load_method, with_defaults
from igd_jax.session.session import set_up_to_decode
from igd_jax.session.training_weights import training_weights
from igd_jax.session.weights import as_trained, check_decoding_args
from igd_jax.settings.config_flags import decode_as, load_config
from igd_jax.settings.experiments import read_config


def test_an_argument_that_is_newer_than_a_run_has_its_default_there():
    def check(trained, given):
        check_decoding_args(load_method("bigrec", {}), *(with_defaults("bigrec", args) for args in (trained, given)))

    check({"beams": 4}, {"beams": 5, "prompt_loss": False})
    check({"prompt_loss": False}, {})
    with pytest.raises(InputError, match=r"prompt_loss is True, but the run was trained with False, and decoding does"):
        check({}, {"prompt_loss": True})


def test_tokens_weigh_what_they_did_in_training_whichever_method_decodes(trained):
    workdir = Workdir(str(trained))
    decode_as(config := load_config(None, workdir), read_config("d3"))
    config.decode.collaborative = "popularity"
    session = set_up_to_decode(config, workdir)
    assert set(training_weights(session)) == {1.0}
    assert set(training_weights(as_trained(session, workdir))) == {np.float32(0.1), 1.0}
