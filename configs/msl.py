"""MSL on any prepared folder: a softmax over legal tokens, at a fixed temperature or an adaptive one.

python -m igd_jax.train --config=configs/msl.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
python -m igd_jax.train --config=configs/msl.py:adaptive ...the same, with a temperature that follows the logits
"""

from ml_collections import ConfigDict

from configs import common


def get_config(temperature: str = "fixed") -> ConfigDict:
    """MSL with the published temperature; `temperature` is fixed or adaptive."""
    if temperature not in ("fixed", "adaptive"):
        raise ValueError(f"configs/msl.py:{temperature} is unknown; expected fixed or adaptive")
    is_adaptive = temperature == "adaptive"
    config = common.get_config()
    config.method.name = "msl"
    config.method.args.tau = 1.5 if is_adaptive else 4.5  # temperature, or the one to start from
    config.method.args.adaptive = is_adaptive
    config.method.args.denominator = "deciding" if is_adaptive else "all"  # tokens in the mean
    if is_adaptive:
        config.method.args.eta = 0.25  # factor of the number of first tokens, to which the temperature adapts
        config.method.args.alpha = 0.05  # share of each step in the temperature
        config.method.args.tau_min = 1.5  # bounds of what it follows
        config.method.args.tau_max = 5.0
        config.method.args.warm_up = 0  # number of first steps that leave it as it is
        config.train.patience = 0  # the valid loss is taken at the temperature of the moment, and grows with it
    config.decode.alpha = 0.0
    config.decode.length_penalty = 0.0  # sums; published: 1.0, the default of transformers
    return config
