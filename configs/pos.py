"""Pos on any prepared folder: weights that fall along the title. It is CFT without its second loss.

python -m igd_jax.train --config=pos --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
"""

from ml_collections import ConfigDict

from configs import cft


def get_config() -> ConfigDict:
    """CFT at alpha 0; beta is what there is to tune, published 0.09 to 0.96."""
    config = cft.get_config()
    config.method.args.alpha = 0.0
    return config
