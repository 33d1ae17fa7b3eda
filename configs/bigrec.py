"""BIGRec on any prepared folder: the model writes freely, and the catalogue is ranked by distance to what it wrote.

    python -m igd_jax.train --config=configs/bigrec.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=configs/bigrec.py:cft ...the same, with the grounding of CFT

Any run that tuned a model to write titles can be ranked this way: give this file to --decode_as of igd_jax.evaluate.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(grounding: str = "bigrec") -> ConfigDict:
    """BIGRec; `grounding` is bigrec (best text, embedded by the base model) or cft (all texts, by the tuned model)."""
    if grounding not in ("bigrec", "cft"):
        raise ValueError(f"configs/bigrec.py:{grounding} is unknown; expected bigrec or cft")
    is_cft = grounding == "cft"
    config = common.get_config()
    config.method.name = "bigrec"
    config.method.args.beams = 5 if is_cft else 4  # texts that are written; published
    config.method.args.embed_by = "tuned" if is_cft else "base"  # base says little where weights start at random
    config.method.args.grounding = "interleaved" if is_cft else "first"  # texts that are grounded
    config.method.args.statistic = ""  # popularity or collaborative; empty = distance alone
    config.method.args.gamma = 0.0  # weight of the statistic; published: 0.01 to 99, by metric and K on validation
    config.method.args.embeddings = ""  # file of another run's cache; empty = computed
    config.decode.alpha = 0.0  # no effect: nothing is decoded along the trie
    config.decode.length_penalty = 1.0  # published: mean of log-probabilities
    config.decode.top_k = 10  # length of the lists; method.args.beams write the texts, and num_beams has no effect
    return config
