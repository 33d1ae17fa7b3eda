"""A whole run in two minutes on two CPU cores: a small model from random weights on the synthetic catalogue.

make quickstart
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """IGD from random weights; nothing is downloaded."""
    config = common.get_config()
    config.method.name = "igd"
    config.method.args.beta = 0.1
    config.data.category = "products"
    config.model.config = "pico"
    config.tokenizer.vocab_size = 1024
    config.train.global_batch_size = 32
    config.train.micro_batch_size = 32
    config.train.learning_rate = 3e-3
    config.train.num_steps = 500
    config.train.log_every_steps = 50
    config.train.patience = 0
    config.decode.batch_size = 32
    return config
