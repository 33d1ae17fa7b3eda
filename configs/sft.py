"""Plain fine-tuning on titles: the baseline that IGD and D3 call BIGRec.

    python -m igd_jax.train --config=sft --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.evaluate --workdir=RUN --name=igd --config.decode.alpha=0.2    ...with IGD's decoding on top

Decoded with length penalty 1, the papers' "BIGRec"; `--config.decode.length_penalty=0` is their "D3" without a source.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Every target token weighs 1, and no sibling is discounted."""
    config = common.get_config()
    config.method.name = "sft"
    config.method.args.prompt_loss = False  # whether the loss covers the prompt, too, as in BIGRec; needs a decoder
    config.decode.alpha = 0.0
    config.decode.length_penalty = 1.0
    return config
