"""However a model is split over eight devices, it trains and recommends as on one."""

import jax
import numpy as np
import pytest
import tiny_run
from runs import first_gradients, train_tiny, without_speed

from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluate import evaluate

MESHES = {
    "one": {"mesh.data": 1},
    "data": {"mesh.data": 8},
    "all": {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2},
}
TWO_STEPS = {
    "train.num_steps": 2, "train.warmup_steps": 0, "train.log_every_steps": 1, "train.checkpoint_every_steps": 1,
    "train.micro_batch_size": 8,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "meshes"),
    [({}, tuple(MESHES)), ({"model.lora_rank": 2}, ("one", "all"))],
    ids=["whole", "adapters"],
)
def test_every_mesh_gives_the_losses_gradients_and_lists_of_one_device(tiny, tmp_path, model, meshes):
    """Eight shards along one axis: `test_a_state_is_restored_onto_another_mesh`, and two processes in test_pair.

    Lists are those of the whole model: a search has no other layers with adapters than the loss.
    """
    found = {}
    for name in meshes:
        folder, changes = tmp_path / name, TWO_STEPS | MESHES[name] | model
        grads = jax.device_get(first_gradients(tiny_run.tiny_config(tiny, changes), folder))
        train_tiny(tiny, folder, changes)
        if not model:
            evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(folder)), name="test")
        metrics = {} if model else read_json(folder / "eval/test/metrics.json")
        found[name] = grads, without_speed(folder), metrics
    expected, lines, metrics = found.pop("one")
    for name, (grads, ours, measured) in found.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, expected)
        for mine, theirs in zip(ours, lines, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4), name
        assert measured == metrics, name


@pytest.mark.slow
def test_a_state_is_restored_onto_another_mesh(tiny, tmp_path):
    train_tiny(tiny, tmp_path / "one", TWO_STEPS)
    steps = {"train.num_steps": 1}
    train_tiny(tiny, tmp_path / "two", TWO_STEPS | {"mesh.data": 1, "mesh.fsdp": 8} | steps)
    train_tiny(tiny, tmp_path / "two", TWO_STEPS | {"mesh.data": 2, "mesh.fsdp": 2})
    for ours, theirs in zip(without_speed(tmp_path / "two")[-2:], without_speed(tmp_path / "one")[-2:], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
