"""IGD on any prepared folder, or with the published recipe of a category.

    python -m igd_jax.train --config=configs/igd.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=configs/igd.py:books ...the same, with the published recipe of a category

The part after the colon sets the authors' prompt, noun, beta and candidate set together. Runs with their times and
scores are in LOG.md.
"""

from ml_collections import ConfigDict

from configs import common

# Noun in the prompt and beta (arXiv 2506.13229, published scripts).
PUBLISHED = {
    "books": ("books", 0.1),
    "games": ("video games", 0.2),
    "toys": ("toys and games", 0.5),
    "cds": ("musics", 0.1),
}


def get_config(category: str = "") -> ConfigDict:
    """IGD; `category` is empty or one of `PUBLISHED`."""
    config = common.get_config()
    config.method.name = "igd"
    config.method.args.beta = 0.1  # weight of tokens without information gain; 1 = plain SFT
    config.method.args.weights = "zero"  # of the others: 1 (zero, published), or by the gain: gain, relative
    config.method.args.entropy = "mass"  # behind gain and relative: of the published code (mass), or given the prefix
    if category:
        if category not in PUBLISHED:
            raise ValueError(f"configs/igd.py:{category} is unknown; expected one of {', '.join(PUBLISHED)}")
        config.data.category, config.method.args.beta = PUBLISHED[category]
        config.data.prompt = "igd"
        config.data.candidates = "train"
        config.decode.max_new_tokens = 72
    return config
