"""SASRec on any prepared folder: a small model of item ids, and the collaborative source of D3 and BIGRec.

    python -m igd_jax.train --config=sasrec --config.data.dir=DATA --workdir=SASREC

When it ends, it leaves SASREC/collaborative.safetensors, which other runs on the same data name by
--config.decode.collaborative=SASREC. Training stops after five epochs without a better NDCG@20 on valid.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """SASRec; sizes and learning rate as published with D3-style scores where they do not say otherwise."""
    config = common.get_config()
    config.method.name = "sasrec"
    config.method.args.loss = "softmax"  # over all items; bce = one negative per row, the published default
    config.method.args.max_history = 10  # newest items that are read; published: 10
    config.method.args.width = 64  # of item vectors; published: 32
    config.method.args.num_blocks = 1  # published: 1
    config.method.args.num_heads = 1  # published: 1
    config.method.args.dropout = 0.5  # published: 0.3
    config.train.update(
        global_batch_size=1024,  # published: 1024
        micro_batch_size=1024,
        learning_rate=1e-3,  # published: 1e-3
        num_epochs=100,  # at most; published: 500
        patience=5,  # epochs; published: 20
        schedule="constant",
        warmup_steps=0,
        clip_norm=1.0,  # the published recipe names none
        weight_decay=0.1,  # decoupled (AdamW), times the rate; published: 1e-5, in Adam
        checkpoint_every_steps=1000,
    )
    config.decode.top_k = 10  # length of the lists; all items are scored, and num_beams has no effect
    config.decode.batch_size = 256
    return config
