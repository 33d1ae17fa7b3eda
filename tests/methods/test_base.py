"""Methods are files: what they write, and their names and arguments, which are checked before anything runs."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch, with_targets
from flax import nnx
from tiny_models import VOCAB, random_model

import igd_jax.methods
from igd_jax.core.errors import InputError
from igd_jax.methods import load_method, with_defaults
from igd_jax.methods.base import BACKBONE, CollaborativeMethod, ItemsMethod, Method, target_logits
from igd_jax.models.visibility import Causal, positions_of

NAMES = sorted(path.stem for path in Path(igd_jax.methods.__path__[0]).glob("[!_]*.py") if path.stem != "base")
BASES = (Method, CollaborativeMethod, ItemsMethod)
every_method = pytest.mark.parametrize("name", NAMES)


@every_method
def test_every_file_holds_one_final_method(name):
    method = load_method(name, {})
    assert type(method).__bases__ in {(base,) for base in BASES}
    assert type(method).__module__ == f"igd_jax.methods.{name}"


@pytest.mark.parametrize("base", BASES)
def test_a_base_writes_nothing_that_a_method_could_inherit(base):
    public = {name for name in vars(base) if not name.startswith("_")}
    assert public <= base.__abstractmethods__


@every_method
def test_a_method_writes_all_that_its_base_declares(name):
    method = load_method(name, {})
    base = type(method).__bases__[0]
    assert base.__abstractmethods__ <= vars(type(method)).keys()
    declared = {each for one in base.__mro__ for each in getattr(one, "__annotations__", {})}
    assert declared == {
        *("model_kind", "inputs", "decoding_args", "beam_search", "backbones", "score", "needs_collaborative")
    }
    assert declared <= vars(type(method)).keys() | vars(method).keys()


@every_method
def test_what_a_method_declares_is_among_what_there_is(name):
    method = load_method(name, {})
    assert method.inputs in ("text", "items")
    assert set(method.backbones) <= {"decoder", "t5"}
    assert (method.model_kind == BACKBONE) <= (method.inputs == "text" and len(method.backbones) > 0)
    assert isinstance(method.needs_collaborative, bool)
    with pytest.raises(InputError, match=f"; {name} takes "):
        load_method(name, {"no such argument": 1})


@pytest.mark.parametrize("name", ["idg", "base", "__init__", "../igd", "igd_jax.methods.igd", ""])
def test_an_unknown_method_lists_those_there_are(name):
    with pytest.raises(InputError) as caught:
        load_method(name, {})
    meant = "; did you mean 'igd'?" if name in ("idg", "../igd") else ""
    assert str(caught.value) == f"config.method.name is {name!r}; known methods are {', '.join(NAMES)}{meant}"


def test_an_unknown_argument_lists_those_it_takes():
    with pytest.raises(InputError) as caught:
        load_method("igd", {"gamma": 1.0, "beta": 0.5, "alpha": 2})
    assert str(caught.value) == (
        "config.method.args has alpha, gamma; igd takes beta, weights, entropy; leave the others out of the "
        "experiment, or start from one of igd, such as --config=igd"
    )


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Load a method from the text of its module."""
    monkeypatch.setattr(igd_jax.methods, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(igd_jax.methods, "__path__", [str(tmp_path), *igd_jax.methods.__path__])

    def load(text):
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
        return load_method("own", {})

    yield load
    sys.modules.pop("igd_jax.methods.own", None)


WHOLE = """
from igd_jax.methods import base

class Own(base.Method):
    model_kind = inputs = score = ""
    decoding_args = backbones = ()
    beam_search = True
    make_model = objective = engine = None

    def __init__(self):
        self.needs_collaborative = False

METHOD = Own
"""


@pytest.mark.parametrize(
    ("less", "lacks"),
    [
        ("    beam_search = True\n", "beam_search"),
        (
            "    make_model = objective = engine = None\n    beam_search = True\n",
            "engine, make_model, objective, beam_s",
        ),
        ("        self.needs_collaborative = False\n", "needs_collaborative"),
    ],
)
def test_a_method_that_lacks_what_every_method_has(own, less, lacks):
    text = WHOLE
    for line in less.splitlines(keepends=True):
        assert line in text
        text = text.replace(line, "        pass\n" if line.startswith("     ") else "")
    with pytest.raises(InputError, match=rf"^the METHOD of igd_jax/methods/own.py has no {lacks}.*; define all that"):
        own(text)


def test_a_method_that_is_whole(own):
    assert own(WHOLE).needs_collaborative is False


@pytest.mark.parametrize("text", [WHOLE.replace("METHOD = ", "METHODS = "), "METHOD = 1"])
def test_a_module_without_a_method(own, text):
    with pytest.raises(InputError, match=r"^igd_jax/methods/own.py has no METHOD; expected its last line to be METHOD"):
        own(text)


# -------------------------------------------------------------------------------------------------------------- targets
def some_ids(seed: int, lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCAB, n).tolist() for n in lengths]


logits_of = nnx.jit(target_logits)


def test_a_shared_prefix_apart_gives_the_logits_of_whole_prompts():
    model = random_model("decoder")
    (shared,), prompts, targets = some_ids(0, [4]), some_ids(1, [5] * 3), some_ids(2, [3] * 3)
    apart, whole = text_batch(prompts, shared=shared), text_batch([shared + prompt for prompt in prompts])
    ours, theirs = (logits_of(model, with_targets(batch, targets, width=3)) for batch in (apart, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_target_logits_are_those_of_a_run_over_everything_shifted_by_one():
    model, n_target = random_model("decoder"), [1, 3, 2]
    prompts, targets = some_ids(3, [6 - n for n in n_target]), some_ids(4, n_target)
    ours = logits_of(model, with_targets(text_batch(prompts, width=7), targets, width=4))
    assert ours.dtype == jnp.float32

    @nnx.jit
    def everything(model, ids):
        valid = jnp.ones(ids.shape, bool)
        hidden, _ = model(ids, positions=positions_of(valid), visible=Causal(valid))
        return model.logits(hidden)

    whole = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
    theirs = everything(model, jnp.asarray(whole))  # six real tokens in each row
    for row, n in enumerate(n_target):
        np.testing.assert_allclose(ours[row, :n], theirs[row, 5 - n : 5], atol=1e-5)


def test_arguments_are_completed_by_the_defaults_of_the_method():
    assert with_defaults("igd", {"beta": 0.3}) == {"beta": 0.3, "weights": "zero", "entropy": "mass"}
    assert with_defaults("sft", {}) == {"prompt_loss": False}
    assert with_defaults("no such method", {"x": 1}) == {"x": 1}
