"""BIGRec on any prepared folder: the model writes freely, and the catalogue is ranked by distance to what it wrote.

    python -m igd_jax.train --config=bigrec --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.train --config=bigrec:cft ...the same, with the grounding of CFT
    python -m igd_jax.train --config=bigrec:games ...the same, with BIGRec's published prompt and recipe

The published recipe tunes adapters on weights of 8 bits: add --config.model.quantize=int8 (docs/precision.md). What
else differs: all train rows are used, where the published command draws 1,024 (--config.data.max_examples=1024 takes as
many, but popularity then counts those alone); no text is longer than the longest candidate; prompts are the same in
training and inference; the computation is in float32, theirs in 16 bits.

Any run that tuned a model to write titles can be ranked this way: give this file to --decode_as of igd_jax.evaluate.
"""

from ml_collections import ConfigDict

from configs import common

GROUNDINGS = ("bigrec", "cft")


def get_config(word: str = "bigrec") -> ConfigDict:
    """BIGRec; `word` is a grounding or one of `common.BIGREC_NOUNS`.

    The groundings are bigrec (best text, embedded by the base model) and cft (all texts, by the tuned model).
    """
    is_cft = word == "cft"
    config = common.get_config()
    config.method.name = "bigrec"
    config.method.args.prompt_loss = False  # whether the loss covers the prompt, too; published: True
    config.method.args.beams = 5 if is_cft else 4  # texts that are written; published
    config.method.args.embed_by = "tuned" if is_cft else "base"  # base says little where weights start at random
    config.method.args.grounding = "interleaved" if is_cft else "first"  # texts that are grounded
    config.method.args.min_new_tokens = 4 if is_cft else 0  # tokens of a text before EOS; published: 4 (CFT)
    config.method.args.statistic = ""  # popularity or collaborative; empty = distance alone
    config.method.args.gamma = 0.0  # weight of the statistic; published: 0.01 to 99, by metric and K on validation
    config.method.args.embeddings = ""  # file of another run's cache; empty = computed
    config.decode.alpha = 0.0  # no effect: nothing is decoded along the trie
    config.decode.length_penalty = 1.0  # published; see docs/decoding.md for transformers of 2023
    config.decode.top_k = 10  # length of the lists; method.args.beams write the texts, and num_beams has no effect
    if word not in GROUNDINGS:
        nouns = common.BIGREC_NOUNS
        common.with_prompt(config, "bigrec", word, nouns=nouns, where="bigrec.py:", also=GROUNDINGS)
        config.method.args.prompt_loss = True
        config.model.update(lora_rank=8, lora_alpha=16.0, lora_targets="q,v")
        config.loss.normalizer = "micro_batch"
        config.train.update(micro_batch_size=4, num_epochs=50, patience=5)
        config.decode.max_new_tokens = 128
    return config
