"""TIGER over given codes, as LETTER trains it: a small T5, from random weights, writes the code of the next item.

    python -m igd_jax.prepare --source=letter --input=FOLDER --output=DATA
    python -m igd_jax.train --config=tiger --config.data.dir=DATA --workdir=RUN
    python -m igd_jax.train --config=igd --config.identifiers.name=codes ...        IGD over codes, on any backbone

The recipe is that of LETTER-TIGER for Instruments. What differs: warm-up is a number of steps, 1 % of those of that
set; weight decay covers norms, too; beside the codes, the vocabulary has the 257 ids of a tokenizer of which EOS alone
is used, as the start, too, theirs the 32,100 of T5's (--config.tokenizer.path=T5_FOLDER); the loss has temperature 1,
as in their script. How codes are learnt is not part of this project.
"""

from ml_collections import ConfigDict

from configs import sft


def get_config() -> ConfigDict:
    """Plain cross-entropy over codes, and a beam search among the codes of the catalogue."""
    config = sft.get_config()
    config.identifiers.name = "codes"
    config.data.prompt = "letter"  # the codes of a history, end to end, and EOS
    config.tokenizer.vocab_size = 257
    config.model.config = "t5-tiger"
    config.train.global_batch_size = 1024  # published: 256 on each of 2 GPUs, twice
    config.train.micro_batch_size = 128  # sorted by length, so that short histories pad little
    config.train.learning_rate = 5e-4
    config.train.weight_decay = 0.01
    config.train.schedule = "cosine"
    config.train.warmup_steps = 258  # published: 1 % of the steps of 200 epochs
    config.train.num_epochs = 200
    config.train.patience = 20  # published, evaluations of the loss, once per epoch
    config.decode.num_beams = 20
    return config
