"""Makes tests/golden from the figures of the authors' code in full size (docs/golden.md).

    python tests/derive_golden.py [FOLDER]

FOLDER holds golden/, models/ and data/, and is ../shared by default. Figures are taken as they are, never computed:
what is computed here, with transformers, is what they are compared by, a small model's log-probabilities.
"""

import copy
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from plain_trie import plain_trie
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

HERE = Path(__file__).parent
EOS = 0
N_PROMPTS = 1
"""Prompts of the decoding runs."""
N_EMBEDDED = 128
"""Items whose embeddings are kept; distances are kept for all."""
AT_ONCE = 64
"""Titles per call of the model."""
ADAPTIVE_CASE = "scale0.5_bonus15_alpha0.05"

Arrays = dict[str, np.ndarray]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def ragged(name: str, rows: list[list[int]]) -> Arrays:
    """Rows end to end, and where each starts."""
    start = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return {f"{name}_ids": np.concatenate(rows).astype(np.uint16), f"{name}_start": start}


# ------------------------------------------------------------------------------------------------------------------ IGD
def igd(shared: Path) -> tuple[Arrays, dict]:
    """Titles as token rows with counts; gains; the loss batch; and lists of the decoding runs."""
    folder = shared / "golden/igd_amazon_books"
    frequency, gains = read(folder / "item_frequency.json"), read(folder / "information_gain.json")
    decoding, losses = read(folder / "igd_decoding.json"), read(folder / "igd_loss.json")
    tokenizer = Tokenizer.from_file(str(shared / "models/tiny-qwen2-books/tokenizer.json"))
    rows = [[*tokenizer.encode(f"{title}\n", add_special_tokens=False).ids, EOS] for title in frequency]
    number = {title: row for row, title in enumerate(frequency)}
    for item in gains["items"]:
        assert rows[number[item["title"]]] == item["tokens"]
    labels = arrays(folder / "igd_loss.npz")["labels"]
    kept = {
        **ragged("title", rows),
        "count": np.array(list(frequency.values()), np.int32),
        "gain_title": np.array([number[item["title"]] for item in gains["items"]], np.int32),
        "gain": np.concatenate([item["information_gain"] for item in gains["items"]]),
        "relative_gain": np.concatenate([item["relative_information_gain"] for item in gains["items"]]),
        **ragged("loss_target", [row[row >= 0].tolist() for row in labels]),
    }
    runs = [
        {name: value for name, value in run.items() if name != "results"}
        | {
            "titles": [[number[title] for title in result["titles"]] for result in run["results"][:N_PROMPTS]],
            "scores": [result["scores"] for result in run["results"][:N_PROMPTS]],
        }
        for run in decoding["runs"]
    ]
    figures = {name: gains[name] for name in ("root_entropy", "total_frequency", "statistics")}
    return kept, {**figures, "loss_by_beta": losses["loss_by_beta"], "runs": runs}


def model_of(shared: Path):
    """The small model of the authors' runs."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(shared / "models/tiny-qwen2-books", dtype="float32").eval()


def igd_inputs(shared: Path, titles: list[list[int]]) -> Arrays:
    """What transformers says of the batch and of the trie, float32.

    ``loss_logits`` [tokens 2]: the logit of each target token, and the logsumexp of those of all other tokens.
    ``edge_logp`` [prompts nodes]: log-probability of the last token of each prefix of a title, prefixes in
    lexicographic order; 0 for the empty one.
    """
    import torch

    model, folder = model_of(shared), shared / "golden/igd_amazon_books"
    given = {name: torch.tensor(array) for name, array in arrays(folder / "igd_loss.npz").items()}
    with torch.no_grad():
        logits = model(given["input_ids"], attention_mask=given["attention_mask"]).logits[:, :-1].double()
        labels = given["labels"][:, 1:]
        logits, labels = logits[labels >= 0], labels[labels >= 0][:, None]
        pairs = [logits.gather(1, labels), logits.scatter(1, labels, -torch.inf).logsumexp(1, keepdim=True)]

        nodes = plain_trie(titles)
        table = np.zeros((N_PROMPTS, len(nodes)), np.float32)
        for row, prompt in enumerate(read(folder / "igd_decoding.json")["prompts"][:N_PROMPTS]):
            past = model(torch.tensor([prompt[:-1]]), use_cache=True).past_key_values
            by_length = sorted(titles, key=len)
            for group in range(0, len(titles), AT_ONCE):
                some = by_length[group : group + AT_ONCE]
                width = len(some[-1])
                ids = torch.tensor([[prompt[-1], *title, *[EOS] * (width - len(title))] for title in some])
                cache = copy.deepcopy(past)
                cache.batch_repeat_interleave(len(some))
                logp = model(ids[:, :-1], cache=cache).logits.log_softmax(-1)
                logp = logp.gather(2, ids[:, 1:, None])[..., 0].numpy()
                for title, values in zip(some, logp, strict=True):
                    node = nodes[0]
                    for token, value in zip(title, values, strict=False):
                        node = node.children[token]
                        table[row, node.number] = value
    return {"loss_logits": torch.cat(pairs, 1).float().numpy(), "edge_logp": table}


# ------------------------------------------------------------------------------------------------------------------ MSL
def msl(shared: Path) -> tuple[Arrays, dict]:
    """Logits of the legal tokens, token losses and gradients, with titles in quotes and without; and temperatures."""
    kept: Arrays = {}
    figures = {}
    folder = shared / "golden/msl_bigrec"
    for name in ("quoted", "unquoted"):
        found, told = arrays(folder / f"msl_{name}.npz"), read(folder / f"msl_{name}.json")
        token = np.repeat(np.arange(len(found["target"])), np.diff(found["allowed_offsets"]))
        kept |= {
            f"{name}_row": found["row"],
            f"{name}_target": found["target"],
            f"{name}_allowed": found["allowed"].astype(np.uint16),
            f"{name}_allowed_start": found["allowed_offsets"].astype(np.int32),
            f"{name}_logits": found["logits"][token, found["allowed"]],
        }
        for kind in ("token_loss", "grad"):
            kept |= {f"{name}_{kind}_tau{tau}": found[f"msl_{kind}_tau{tau}"] for tau in ("1", "4.5")}
        figures[name] = {tau: told["msl"][tau]["loss"] for tau in ("1", "4.5")}
        if name == "unquoted":
            kept |= {f"adaptive_{part}": found[f"ats_{part}_{ADAPTIVE_CASE}"] for part in ("token_loss", "grad")}
            kept |= {name: found[f"ats_{name}"] for name in ("root_allowed", "root_logits", "root_target")}
            figures["adaptive"] = told["ats"]
    return kept, {**figures, "metrics": read(folder / "msl_metrics.json")}


# --------------------------------------------------------------------------------------------------------------- BIGRec
BIGREC = (
    *("pop_count", "gamma_grid_cf_game", "gamma_grid_pop", "predict_embedding_test", "dist_test", "target_item_test"),
    *("cf_score_test", "cf_game_hr_test", "cf_game_ndcg_test"),
    *("pop_best_duplicate_hr_test", "pop_best_duplicate_ndcg_test"),
)


def bigrec(shared: Path) -> tuple[Arrays, dict]:
    """Embeddings, distances, statistics and metrics by gamma of the test rows."""
    found, told = (
        read_as(shared / f"golden/msl_bigrec/bigrec.{end}") for read_as, end in ((arrays, "npz"), (read, "json"))
    )
    return {
        **{name: found[name] for name in BIGREC},
        "item_embedding": found["item_embedding"][:N_EMBEDDED],
        "item_title": titles_of(told),
    }, {"top_k": told["top_k"], "evaluate_test": told["evaluate_game"]["test"]}


def titles_of(told: dict) -> np.ndarray:
    """A number for the title of each item; items that share a title share it."""
    return np.unique(told["item_titles"], return_inverse=True)[1].astype(np.int32)


# --------------------------------------------------------------------------------------------------------------- SETRec
def setrec(shared: Path) -> tuple[Arrays, dict]:
    """The case with a decoder, without the embeddings of tokens that are not read; ids are renumbered."""
    folder = shared / "golden/setrec_qwen"
    found, weights, case = (
        arrays(folder / "case.npz"),
        load_file(folder / "weights.safetensors"),
        read(folder / "case.json"),
    )
    ids = ("instruct_ids", "response_ids")
    used = np.unique(np.concatenate([found[name].ravel() for name in ids]))
    found |= {name: np.searchsorted(used, found[name]) for name in ids}
    embeddings = "qwen_model.embed_tokens.weight"
    weights[embeddings] = weights[embeddings][used]
    case["config"]["vocab_size"] = len(used)
    return {**found, **weights}, case


# ---------------------------------------------------------------------------------------------------------------- TIGER
TIGER_NOTES = ("base_vocab", "authors_base_vocab", "id_shift", "max_his_len", "temperatures", "transformers", "torch")
N_BEAMS = (10, 20)


def tiger(shared: Path) -> tuple[Arrays, dict]:
    """LETTER's T5 with its data, and the lists of each number of beams."""
    folder = shared / "golden/letter"
    beams, config = read(folder / "t5_beams.json"), read(folder / "t5_config.json")
    kept, n_tokens = arrays(folder / "t5_weights.npz"), config["base_vocab"]
    for n in N_BEAMS:
        rows = np.array(beams[str(n)]["sequences"], np.int32)
        lists = rows.reshape(-1, n, rows.shape[1])[..., 1:]  # without the start
        kept[f"tokens_{n}"] = np.ascontiguousarray(lists)  # safetensors writes memory as it lies
        kept[f"scores_{n}"] = np.array(beams[str(n)]["scores"], np.float32)
    return kept, {
        "config": {name: value for name, value in config.items() if name not in TIGER_NOTES},
        "n_tokens": n_tokens,
        "inter": read(folder / "Toy.inter.json"),
        "index": read(folder / "Toy.index.json"),
        "metrics": {n: beams[str(n)]["metric_means"] for n in map(str, N_BEAMS)},
    }


PARTS = {"igd": igd, "msl": msl, "bigrec": bigrec, "setrec": setrec, "tiger": tiger}


def main(shared: Path) -> None:
    """Write every file."""
    for name, part in PARTS.items():
        kept, figures = part(shared)
        if name == "igd":
            start = kept["title_start"]
            titles = [kept["title_ids"][a:b].tolist() for a, b in pairwise(start)]
            kept |= igd_inputs(shared, titles)
        save_file(kept, HERE / "golden" / f"{name}.safetensors")
        text = json.dumps(figures, indent=1)
        (HERE / "golden" / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]) if sys.argv[1:] else HERE.parents[1] / "shared")
