"""SETRec: a few vectors per item in place of its title, and one forward pass per list.

    python -m igd_jax.train --config=setrec --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN \
        --config.method.args.collaborative=SASREC_RUN
    python -m igd_jax.train --config=setrec:t5 ... --config.model.path=T5_DIR
    python -m igd_jax.train --config=setrec:t5 ... --config.model.config=t5-pico        random weights

The recipe is the published one for Toys. What differs: all weights of a decoder are tuned, where the authors use LoRA
(--config.model.lora_rank=8 --config.model.lora_targets=q,v,o --config.model.quantize=int8); attention and positions
are those of the paper and not of the code (method.args.attention, positions); means are those of a whole step
(loss.normalizer=micro_batch: theirs, of each micro-batch); beta of the T5 is not chosen on test; features of a T5's
items come from that T5, field by field, where the authors read one joined text with sentence-t5-base; the computation
is in float32, theirs in 16 bits over trained weights of float32 (AMP).
Data as published: prepare --source=setrec. With --min_history=0 --max_history=49 --max_eval_history=0 other sources
have histories of the published lengths, but every event is a target (docs/methods/setrec.md).
Runs with their times and scores are in LOG.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(backbone: str = "") -> ConfigDict:
    """SETRec; `backbone` is empty (a decoder) or ``t5``."""
    if backbone not in ("", "t5"):
        raise ValueError(f"configs/setrec.py:{backbone} is unknown; expected t5 or nothing")
    config = common.get_config()
    if backbone:
        config.model.config = "t5-small"  # published, with its dropout of 0.1; used when model.path is empty
    config.model.lora_dropout = 0.02  # published; of adapters, if there are any
    config.method.name = "setrec"
    config.method.args.n_semantic = 4 if backbone else 6  # semantic tokens per item; published: 4 (T5), 6 (Qwen)
    config.method.args.alpha = 0.7 if backbone else 0.5  # weight of the autoencoder's error; published
    config.method.args.beta = 0.1  # weight of the semantic scores when ranking, 0 to 1; published (Qwen): 0.1
    config.method.args.collaborative_token = True  # False = semantic tokens alone (with beta 1)
    config.method.args.collaborative = ""  # folder of a SASRec run, or .npy file; empty = vectors trained here
    config.method.args.features = ""  # .npy file, or safetensors with "features"; empty = the items' texts, read first
    config.method.args.pooling = "mean"  # of a text's hidden states: over its tokens (published), or last = its last
    config.method.args.text_model = ""  # Hugging Face folder (decoder, T5) that reads texts; empty = the backbone
    config.method.args.missing = ""  # zero = features that are not finite count as zeros; empty = refuse them
    config.method.args.sampled_items = 0  # items of the softmax beside a micro-batch's targets; 0 = all, published
    config.method.args.positions = "contiguous"  # published: with loss.normalizer=micro_batch
    config.method.args.attention = "sparse"  # as the paper says; dense = plain; published = as the authors' code of T5
    config.method.args.trained_queries = True  # published; False = queries stay random
    config.train.global_batch_size = 512
    config.train.micro_batch_size = 128 if backbone else 64
    config.train.learning_rate = 1e-3 if backbone else 3e-4
    config.train.num_epochs = 30 if backbone else 20
    config.train.schedule = "cosine"
    config.train.warmup_steps = 100
    config.train.eval_every_steps = 200 if backbone else 100
    config.train.patience = 10 if backbone else 5
    config.train.eval_protocol = "users"  # published: the first valid item of 2,000 users, theirs drawn by chance
    config.train.eval_examples = 2000
    config.decode.top_k = 10  # length of the lists; all items are scored, and num_beams has no effect
    return config
