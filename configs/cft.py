"""CFT on any prepared folder: position weights, and a loss on what the history adds to the logits.

python -m igd_jax.train --config=cft --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """CFT with the published alpha and beta."""
    config = common.get_config()
    config.method.name = "cft"
    config.method.args.alpha = 0.1  # weight of the loss on the difference of logits; 0 = Pos
    config.method.args.beta = 0.25  # weight of a title's last token, from 1 at its first
    config.method.args.stop_gradient = False  # whether the logits without history are constants
    config.method.args.gain_beta = 1.0  # IGD's beta on top; 1 = none
    config.decode.alpha = 0.0
    return config
