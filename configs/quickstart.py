"""A whole run in two minutes on two CPU cores: a model of a million parameters on the synthetic catalogue.

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
    config.model.config = "nano"
    config.tokenizer.vocab_size = 512
    config.train.global_batch_size = 64
    config.train.micro_batch_size = 64
    config.train.learning_rate = 3e-3
    config.train.num_epochs = 4
    config.train.patience = 0
    config.decode.batch_size = 32
    return config
