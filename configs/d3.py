"""D3: plain fine-tuning, decoded by a mixture of the language model and a collaborative source (arXiv 2406.14900).

    python -m igd_jax.evaluate --workdir=RUN --decode_as=d3 --name=d3 \
        --config.decode.collaborative=SASREC --config.method.args.lam=0.5

RUN is any run that tuned a model to write titles (sft, igd, cft, ...); SASREC a finished run of
configs/sasrec.py; popularity is a source, too. Trained by itself, this config is configs/sft.py. A word after the
colon, --config=d3:books, sets the authors' recipe for a category, with quotes around titles. What differs: lam, which
their script leaves at 1 (the source then has no effect) and their paper does not tell; popularity stands in for SASRec;
weights are float32, theirs bfloat16 (docs/methods/d3.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(category: str = "") -> ConfigDict:
    """The mixture at equal shares, scores summed; `category` is empty or one of `common.D3_NOUNS`."""
    config = common.get_config()
    config.method.name = "d3"
    config.method.args.lam = 0.5  # share of the language model, 0 to 1; choose it on validation (evaluate --choose)
    config.decode.alpha = 0.0
    config.decode.length_penalty = 0.0
    config.decode.collaborative = "popularity"
    if category:
        common.with_prompt(config, "d3", category, nouns=common.D3_NOUNS, where="d3.py:")
        config.loss.normalizer = "micro_batch"
        # Theirs are 4 rows on each of 8 GPUs, ours on all devices: beyond 4 of them, set a multiple of their number.
        config.train.update(learning_rate=3e-4, micro_batch_size=4)
        config.decode.max_new_tokens = 64
    return config
