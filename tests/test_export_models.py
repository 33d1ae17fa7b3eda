"""Exports of other models than a decoder tuned whole: what opens, what equals the run, and what is missing."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from batches import text_batch
from carried import carried
from flax import nnx
from runs import train_tiny
from safetensors.numpy import load_file
from test_export import HISTORIES, assert_same_lists, export, lists_of

from igd_jax import Recommender
from igd_jax import export as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json, write_json
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.unconstrained import unconstrained_search
from igd_jax.session.session import set_up_to_decode

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow
LORA = {"model.lora_rank": 2, "model.lora_targets": "q,v,up", "train.num_steps": 6, "train.learning_rate": 0.1}


def decoder_of(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("k", [1, 3])
def test_free_search_of_transformers_writes_what_ours_writes(trained, tmp_path, k):
    export(trained, tmp_path / "out")
    recommender = Recommender.load(trained)
    prompts = [recommender.session.prompts.of_texts([history])[0].tolist() for history in HISTORIES[:4]]
    width, eos = max(map(len, prompts)), recommender.session.tokenizer.eos
    graph, state = nnx.split(recommender.trained.model)

    @jax.jit
    def search(state, batch):
        options = SearchOptions(num_beams=k, max_length=9, length_penalty=1.0)
        return unconstrained_search(nnx.merge(graph, state), batch, options, temperature=1.0, eos=eos)

    ours = search(state, text_batch(prompts))
    found = decoder_of(tmp_path / "out").generate(
        torch.tensor([[eos] * (width - len(prompt)) + prompt for prompt in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
        max_new_tokens=9, num_beams=k, num_return_sequences=k, do_sample=False, early_stopping=False,
    )  # fmt: skip
    theirs = [row[: row.index(eos) + 1] if eos in row else row for row in found[:, width:].tolist()]
    lengths, tokens = np.asarray(ours.lengths).ravel(), np.asarray(ours.tokens).reshape(len(theirs), -1)
    assert [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)] == theirs


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_a_run_with_lora_is_merged_or_handed_to_peft(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    train_tiny(tiny, tmp_path / "run", LORA)
    assert not [n for n in export(tmp_path / "run", tmp_path / "merged") if not n.startswith("AutoTokenizer ")]
    merged, there = decoder_of(tmp_path / "merged"), carried(tmp_path / "merged")
    ours = lists_of(Recommender.load(tmp_path / "run"))
    assert_same_lists(ours, there.recommend(merged, there.Items(tmp_path / "merged"), HISTORIES))
    assert lists_of(Recommender.load(tmp_path / "merged"))[0] == ours[0]
    (note,) = export(tmp_path / "run", tmp_path / "adapter", adapter=True)
    assert note.startswith("adapters alone: igd_jax itself opens merged folders only")
    adapted = peft.PeftModel.from_pretrained(decoder_of(tiny / "model"), str(tmp_path / "adapter"))
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        np.testing.assert_allclose(adapted(ids).logits.numpy(), merged(ids).logits.numpy(), atol=1e-5)
    assert decoder_of(tmp_path / "adapter").config.vocab_size == merged.config.vocab_size  # transformers finds the base
    with pytest.raises(InputError, match="holds adapters alone, which is not opened here; load the run, or export it"):
        Recommender.load(tmp_path / "adapter")
    config, url = read_json(path := tmp_path / "run" / "config.json"), f"file://{tiny / 'model'}"
    write_json(path, config | {"model": config["model"] | {"path": url}})
    export(tmp_path / "run", tmp_path / "by_url", adapter=True)
    assert read_json(tmp_path / "by_url" / "adapter_config.json")["base_model_name_or_path"] == url  # no copy of it


def test_sums_with_adapters_are_opened_in_the_dtype_of_the_folder(tiny, tmp_path):
    coarse = {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16", "train.learning_rate": 1e-3}
    train_tiny(tiny, tmp_path / "run", LORA | coarse)
    export(tmp_path / "run", tmp_path / "merged")
    model = Recommender.load(tmp_path / "merged").trained.model
    stored = load_file(tmp_path / "merged" / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    (held,) = (
        leaf
        for path, leaf in jax.tree.leaves_with_path(nnx.state(model))
        if "up" in jax.tree_util.keystr(path) and leaf.shape[1:] == stored.T.shape
    )
    assert (stored != stored.astype(jnp.bfloat16)).any()
    np.testing.assert_array_equal(np.asarray(held[1]), stored.T)


def test_a_t5_gives_the_same_lists_and_vllm_is_told_to_have_none(tiny, t5_folder, tmp_path):
    config, workdir = tiny_run.tiny_config(tiny, {"model.path": str(t5_folder)}), Workdir(str(tmp_path / "run"))
    notes = program.export(config, workdir, str(tmp_path / "out"))
    assert "no igd_vllm.py: vLLM runs no T5" in notes
    assert json.loads((tmp_path / "out" / "igd_jax.json").read_text())["not_exported"] == notes
    assert not (tmp_path / "out" / "igd_vllm.py").exists()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", local_files_only=True)
    there = carried(tmp_path / "out")
    ours = lists_of(Recommender(set_up_to_decode(config, workdir), workdir))
    assert_same_lists(ours, there.recommend(model, there.Items(tmp_path / "out"), HISTORIES))
    assert lists_of(Recommender.load(tmp_path / "out"))[0] == ours[0]


def test_a_set_model_exports_its_backbone_and_vectors_and_says_what_is_missing(tiny, tmp_path):
    config = tiny_run.tiny_config(tiny, {"train.num_steps": 1, "train.warmup_steps": 0})
    config.method = {"name": "setrec", "args": {"n_semantic": 1}}
    from igd_jax.train import train

    train(config, workdir := Workdir(str(tmp_path / "run")))
    notes = program.export(config, workdir, str(tmp_path / "out"))
    (note,) = (note for note in notes if not note.startswith("AutoTokenizer "))
    assert note.startswith(
        "no trie.npz and no logits processors, as items are sets of vectors: set_tokens.safetensors "
    )
    assert decoder_of(tmp_path / "out").config.vocab_size == 304
    model = Recommender.load(workdir.path).trained.model
    found = load_file(tmp_path / "out" / "set_tokens.safetensors")
    np.testing.assert_allclose(found["item_tokens"], model.tokens(jnp.arange(len(tiny_run.TITLES))), atol=1e-6)
    np.testing.assert_array_equal(found["queries"], model.queries[...])
    assert {path.name for path in (tmp_path / "out").iterdir()}.isdisjoint({"trie.npz", "igd_transformers.py"})
    with pytest.raises(InputError, match="holds no trie, which is not opened here; load the run"):
        Recommender.load(tmp_path / "out")
