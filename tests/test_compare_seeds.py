"""Several seeds are one method; differences are corrected for their number, and winners beat the second best."""

import json

import numpy as np
import pytest
from evaluation_folders import N_ROWS, run_command, write_evaluation

from igd_jax.compare import compare_folders
from igd_jax.core.errors import InputError


def config_of(seed, *, beta=0.1, source="runs/sasrec/eval/test"):
    return {
        "method": {"args": {"beta": beta}},
        "decode": {"collaborative": source},
        "train": {"seed": seed, "num_steps": 1},
        "eval": {"split": "test"},
    }


@pytest.fixture
def seeds(tmp_path):
    """Two seeds of beta 0.1 that hit other rows, and two of beta 0.5 that miss 10 more."""
    hits = np.where(np.arange(N_ROWS) < 40, 0, -1)
    folders = []
    for beta, shift, kept in ((0.1, 7, 60), (0.5, 3, 30)):
        for seed in (1, 2):
            rank = np.where(np.arange(N_ROWS) < kept, np.roll(hits, shift * seed), -1)
            rank[0] = 0 if seed == 1 else -1
            folder = tmp_path / f"beta={beta},seed={seed}" / "eval" / "test"
            folders.append(write_evaluation(folder, rank.tolist(), config=config_of(seed, beta=beta)))
    return folders


def test_seeds_of_a_config_are_one_method_with_mean_and_spread(seeds):
    result = compare_folders(seeds)
    assert result["evaluations"] == {
        "beta=0.1,seed=*": ["beta=0.1,seed=1", "beta=0.1,seed=2"],
        "beta=0.5,seed=*": ["beta=0.5,seed=1", "beta=0.5,seed=2"],
    }
    for label, folders in zip(result["runs"], (seeds[:2], seeds[2:]), strict=True):
        values = [json.loads((folder / "metrics.json").read_text())["hr@1"] for folder in folders]
        assert result["runs"][label]["hr@1"]["value"] == pytest.approx(np.mean(values))
        assert result["runs"][label]["hr@1"]["spread"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))


def test_seeds_of_runs_in_packs_and_of_padded_ones_are_one_method(seeds):
    config = json.loads((seeds[0] / "config.json").read_text())
    (seeds[0] / "config.json").write_text(json.dumps(config | {"train": config["train"] | {"packing": "none"}}))
    assert len(compare_folders(seeds)["evaluations"]) == 2


def test_how_rows_lie_may_be_what_a_sweep_chose(tmp_path):
    """As by --grid=train.packing=none,rows."""
    tried = {"tried": {"train.packing": ["none", "rows"]}, "metric": "ndcg@3", "split": "valid", "protocol": "rows"}
    folders = []
    for seed, packing in ((1, "rows"), (2, "none")):
        config = config_of(seed)
        config["train"]["packing"] = packing
        run = tmp_path / f"seed={seed},packing={packing}" / "eval"
        folders.append(write_evaluation(run / "later", [0, -1], config=config))
        write_evaluation(run / "test", [0, -1], config=config | {"chosen": tried | {"n": 50}})
    result = compare_folders([*folders, *(folder.with_name("test") for folder in folders)])
    assert len(result["runs"]) == 2
    assert [choice["chosen"] for choice in result["choices"].values()] == [
        [{"train.packing": "rows"}, {"train.packing": "none"}]
    ]


def test_differences_are_between_rows_averaged_over_the_seeds(seeds, tmp_path):
    """Two seeds whose hits add up to those of others in every row are the same method in each row."""
    one, other = [0, 0, -1, -1] * 15, [-1, -1, 0, 0] * 15
    folders = [
        write_evaluation(tmp_path / f"{beta}-{seed}", rank, config=config_of(seed, beta=beta))
        for beta, (first, second) in ((1, (one, other)), (2, ([0, -1] * 30, [-1, 0] * 30)))
        for seed, rank in ((1, first), (2, second))
    ]
    result = compare_folders(folders)
    assert list(result["runs"]) == ["1-*", "2-*"]
    hr = result["runs"]["2-*"]["hr@1"]
    assert (hr["difference"], hr["low"], hr["high"], hr["p"], hr["significant"]) == (0, 0, 0, 1, False)
    assert result["winner"] == dict.fromkeys(["hr@1", "hr@3", "ndcg@1", "ndcg@3"])


def test_paths_may_follow_the_seed_but_nothing_else_may_differ(tmp_path):
    def n_methods(*configs):
        folders = [tmp_path / f"{hash(str(configs))}-{number}" for number in range(len(configs))]
        for folder, config in zip(folders, configs, strict=True):
            write_evaluation(folder, [0, -1], config=config)
        return len(compare_folders(folders)["runs"])

    for form in ("runs/sasrec-seed{}/eval/test", "runs/seed={}", "a,seed_{},b", "seed{}"):
        assert n_methods(config_of(1, source=form.format(1)), config_of(11, source=form.format(11))) == 1
    assert n_methods(config_of(1, source="seed1"), config_of(2, source="seed1")) == 2
    assert n_methods(config_of(1, source="seed1"), config_of(2, source="seed23")) == 2
    assert n_methods(config_of(1, source="seed12"), config_of(2, source="seed22")) == 2
    assert n_methods(config_of(1, source="v1"), config_of(2, source="v2")) == 2
    assert n_methods(config_of(1), config_of(2, beta=0.2)) == 2
    one = config_of(1) | {"data": {"dir": "here", "prompt": "plain"}}
    assert n_methods(one, one | config_of(2) | {"mesh": {"data": 8}, "data": {"dir": "there", "prompt": "plain"}}) == 1
    assert n_methods(one, one | config_of(2) | {"data": {"dir": "here", "prompt": "igd"}}) == 2
    tried = {"method.args.beta": [0.1, 0.2]}
    chosen = {"chosen": {"tried": tried, "metric": "ndcg@3", "split": "valid", "protocol": "rows", "n": 50}}
    assert n_methods(config_of(1) | chosen, config_of(2, beta=0.2) | chosen) == 1
    assert n_methods(config_of(1) | chosen, config_of(2)) == 2


def test_seeds_of_other_data_are_another_method(tmp_path):
    for seed, data in ((1, "11aa"), (2, "22bb")):
        write_evaluation(tmp_path / f"s{seed}", [0, -1], config=config_of(seed), data=data)
    assert compare_folders([tmp_path / "s1", tmp_path / "s2"])["data"] == {"s1": "11aa", "s2": "22bb"}


def test_the_table_says_of_which_split_it_is_and_what_was_chosen_for_each_seed(tmp_path):
    tried = {
        "tried": {"method.args.beta": [0.1, 0.2]},
        "metric": "ndcg@3",
        "split": "valid",
        "protocol": "rows",
        "n": 50,
    }
    configs = [config_of(1), config_of(1) | {"chosen": tried}, config_of(2, beta=0.2) | {"chosen": tried}]
    for name, config in zip(("plain", "best/s1", "best/s2"), configs, strict=True):
        write_evaluation(tmp_path / name, [0, -1], config=config)
    done = run_command(tmp_path, "plain", "best/s1", "best/s2")
    assert done.stdout.splitlines()[-3].startswith(
        "2 rows of test, all targets. best/s*: method.args.beta chosen from 0.1, 0.2 (0.1, 0.2) by ndcg@3 on 50 rows "
        "of valid. Difference to the first"
    )
    found = json.loads(run_command(tmp_path, "plain", "best/s1", "best/s2", "--json").stdout)
    assert found["split"] == "test"
    assert found["choices"] == {"best/s*": {**tried, "chosen": [{"method.args.beta": beta} for beta in (0.1, 0.2)]}}


def test_decoding_that_differs_is_told_and_what_was_chosen_or_follows_the_seed_is_one_value(tmp_path):
    tried = {"tried": {"decode.alpha": [0.0, 0.2]}, "metric": "ndcg@3", "split": "valid", "protocol": "rows", "n": 50}
    settings = {"batch_size": 16, "budget": -1, "top_k": 0}  # which change no list, or only its length
    configs = {
        "a": config_of(1) | {"decode": {"alpha": 0.0, "num_beams": 10, "collaborative": "", **settings}},
        **{
            f"b{seed}": config_of(seed)
            | {"decode": {"alpha": alpha, "num_beams": 5, "collaborative": f"seed={seed}"}, "chosen": tried}
            for seed, alpha in ((1, 0.0), (2, 0.2))
        },
    }
    for name, config in configs.items():
        write_evaluation(tmp_path / name, [0, -1], config=config)
    found = compare_folders([tmp_path / name for name in configs])
    assert found["decoding"] == {
        "a": {"alpha": 0.0, "num_beams": 10, "collaborative": ""},
        "b*": {"alpha": None, "num_beams": 5, "collaborative": "seed=*"},
    }
    told = "order of the methods): alpha 0 / chosen, num_beams 10 / 5, collaborative none / seed=*. b*: decode.alpha ch"
    assert told in run_command(tmp_path, *configs).stdout
    assert "Decoding" not in run_command(tmp_path, "b1", "b2").stdout


def test_what_a_sweep_chose_for_each_seed_makes_no_two_methods_of_later_evaluations(tmp_path):
    tried = {"tried": {"train.num_steps": [1, 2]}, "metric": "ndcg@3", "split": "valid", "protocol": "rows", "n": 50}
    folders = []
    for seed in (1, 2):
        config = config_of(seed)
        config["train"]["num_steps"] = seed
        run = tmp_path / f"seed={seed},num_steps={seed}" / "eval"
        folders.append(write_evaluation(run / "later", [0, -1], config=config))
        write_evaluation(run / "valid", [0, -1], config=config)
    assert len(compare_folders(folders)["runs"]) == 2
    for folder in folders:
        config = json.loads((folder / "config.json").read_text()) | {"chosen": tried}
        write_evaluation(folder.parent / "test", [0, -1], config=config)
    found = compare_folders(folders)
    assert list(found["evaluations"]) == ["seed=*"]
    assert found["choices"] == {}


@pytest.mark.parametrize("content", ["{}", "{"])
def test_another_evaluation_of_a_run_that_cannot_be_read_is_told_once(seeds, content):
    for name in ("broken", "later"):
        write_evaluation(seeds[0].with_name(name), [0] * N_ROWS, config=config_of(1))
    (broken := seeds[0].with_name("broken") / "config.json").write_text(content)
    done = run_command(seeds[0].parent, "test", "later", str(seeds[1]), "--json")
    assert list(json.loads(done.stdout)["runs"]) == ["beta=0.1,seed=*/test", "beta=0.1,seed=1/later"]
    (note,) = done.stderr.splitlines()
    assert note.startswith(f"note: what a sweep chose is not looked up there: {broken} is no")
    with pytest.raises(InputError, match=r"broken/config\.json is no"):
        compare_folders([seeds[0], broken.parent])


def test_rows_of_two_splits_are_not_compared(tmp_path):
    """Rows of the same number, user and target, but of another split."""
    test, valid = config_of(1), config_of(1) | {"eval": {"split": "valid"}}
    folders = [write_evaluation(tmp_path / config["eval"]["split"], [0, -1], config=config) for config in (test, valid)]
    with pytest.raises(InputError, match="test was evaluated on test, valid on valid; compare evaluations of the same"):
        compare_folders(folders)


def test_the_same_seed_again_begins_another_method(tmp_path):
    folders = [
        write_evaluation(tmp_path / code / f"s{seed}", [0, -1], config=config_of(seed))
        for code in ("old", "new")
        for seed in (1, 2)
    ]
    result = compare_folders(folders)
    assert result["evaluations"] == {"old/s*": ["old/s1", "old/s2"], "new/s*": ["new/s1", "new/s2"]}


def test_seeds_of_one_method_alone_are_told_to_be_one_method(seeds):
    done = run_command(seeds[0].parents[2], "beta=0.1,seed=1", "beta=0.1,seed=2")
    assert done.returncode == 0, done.stderr
    assert "\nnote: there is one method only, so nothing to compare; name an evaluation of ano" in done.stdout
    assert "± 0.0" in done.stdout


# --------------------------------------------------------------------------------------------- correction and winners
def test_a_winner_must_beat_the_second_best_and_not_only_the_first(tmp_path):
    low, high, higher = ([0] * n + [-1] * (N_ROWS - n) for n in (5, 40, 42))
    folders = [
        write_evaluation(tmp_path / name, rank) for name, rank in (("a", low), ("b", high), ("c", higher), ("d", low))
    ]
    result = compare_folders(folders)
    assert result["runs"]["c"]["hr@1"]["significant"]
    assert result["winner"]["hr@1"] is None
    assert compare_folders([*folders[:2], folders[3]])["winner"]["hr@1"] == "b"
    assert compare_folders([folders[1], folders[0]])["winner"]["hr@1"] == "b"


def test_each_metric_is_judged_by_itself(tmp_path):
    first = write_evaluation(tmp_path / "first", [0] * 40 + [-1] * 20)
    second = write_evaluation(tmp_path / "second", [1] * 40 + [-1] * 20)
    result = compare_folders([first, second])
    assert {name: metric["significant"] for name, metric in result["runs"]["second"].items()} == {
        "hr@1": True, "hr@3": False, "ndcg@1": True, "ndcg@3": True,
    }  # fmt: skip
    assert result["winner"] == {"hr@1": "first", "hr@3": None, "ndcg@1": "first", "ndcg@3": "first"}


def test_a_difference_alone_may_be_none_among_many(tmp_path):
    rng = np.random.default_rng(0)
    base = np.where(np.arange(N_ROWS) < 20, 0, -1)
    better = np.where((np.arange(N_ROWS) < 25) & (np.arange(N_ROWS) != 3), 0, -1)
    folders = [write_evaluation(tmp_path / "a", base.tolist()), write_evaluation(tmp_path / "b", better.tolist())]
    alone = compare_folders(folders)["runs"]["b"]["hr@1"]
    many = [write_evaluation(tmp_path / f"x{n}", rng.permutation(base).tolist()) for n in range(8)]
    among = compare_folders([*folders, *many])["runs"]["b"]["hr@1"]
    assert (alone["low"], alone["high"]) == pytest.approx((among["low"], among["high"]), abs=0.02)
    assert among["p"] > 1.5 * alone["p"]
