"""MSL on any prepared folder: a softmax over legal tokens, at a fixed temperature or an adaptive one.

python -m igd_jax.train --config=msl --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
python -m igd_jax.train --config=msl:adaptive ...the same, with a temperature that follows the logits
python -m igd_jax.train --config=msl:adaptive,books ...the same, with the published prompt and recipe

The published recipe tunes adapters on weights of 8 bits: add --config.model.quantize=int8 (docs/precision.md), on which
ours then ranks, where the authors rank with 16 bits. What else differs: of the ten epochs the one with the best loss on
valid is kept, where the authors rank test after each; an adaptive temperature is that of the steps before; all train
rows are used, where their data hold 10,000; prompts are the same in training and inference; the computation is in
float32, theirs in 16 bits.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(words: str = "fixed") -> ConfigDict:
    """MSL with the published temperature; `words` are fixed or adaptive, and perhaps one of `common.BIGREC_NOUNS`."""
    temperature, _, category = words.partition(",")
    if temperature not in ("fixed", "adaptive"):
        raise ValueError(f"configs/msl.py:{temperature} is unknown; expected fixed or adaptive, or fixed,books")
    is_adaptive = temperature == "adaptive"
    config = common.get_config()
    config.method.name = "msl"
    config.method.args.tau = 1.5 if is_adaptive else 4.5  # temperature, or the one to start from
    config.method.args.adaptive = is_adaptive  # whether it follows the logits of first tokens
    config.method.args.denominator = "deciding" if is_adaptive else "all"  # tokens in the mean
    if is_adaptive:
        config.method.args.eta = 0.25  # factor of the number of first tokens, to which the temperature adapts
        config.method.args.alpha = 0.05  # share of each step in the temperature
        config.method.args.tau_min = 1.5  # least temperature that it adapts to
        config.method.args.tau_max = 5.0  # greatest one
        config.method.args.warm_up = 0  # number of first steps that leave it as it is
    config.decode.alpha = 0.0
    config.decode.length_penalty = 0.0  # sums; published: 1.0, the default of transformers
    if category:
        common.with_prompt(config, "msl", category, nouns=common.BIGREC_NOUNS, where=f"msl.py:{temperature},")
        config.model.update(lora_rank=8, lora_alpha=16.0, lora_targets="q,v")
        config.loss.normalizer = "micro_batch"
        config.train.update(micro_batch_size=16, num_epochs=10, patience=0)  # theirs: 8 GPUs, no early stop
        config.decode.update(length_penalty=1.0, max_new_tokens=128)
    return config
