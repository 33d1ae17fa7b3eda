"""IGD on any prepared folder, or with the published recipe of a category.

    python -m igd_jax.train --config=igd --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=igd:books ...the same, with the published recipe of a category

The part after the colon sets the authors' prompt, noun, beta, candidate set and divisor of the loss together. Runs with
their times and scores are in LOG.md.
"""

from ml_collections import ConfigDict

from configs import common

BETAS = {"books": 0.1, "games": 0.2, "toys": 0.5, "cds": 0.1}
"""Published betas (arXiv 2506.13229, scripts)."""


def get_config(category: str = "") -> ConfigDict:
    """IGD; `category` is empty or one of `common.D3_NOUNS`, some of which have a published beta."""
    config = common.get_config()
    config.method.name = "igd"
    config.method.args.beta = BETAS.get(category, 0.1)  # weight of tokens without information gain; 1 = plain SFT
    config.method.args.weights = "zero"  # of the others: 1 (zero, published), or by the gain: gain, relative
    config.method.args.entropy = "mass"  # behind gain and relative: of the published code (mass), or given the prefix
    if category:
        common.with_prompt(config, "igd", category, nouns=common.D3_NOUNS, where="igd.py:")
        config.data.candidates = "train"
        config.loss.normalizer = "micro_batch"
        config.decode.max_new_tokens = 72
    return config
