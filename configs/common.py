"""Every field of a config, once, with its unit and where its value comes from. Experiments override; they never copy.

Empty strings and zeros that mean "not set" say so. Unknown fields are errors, in files and on the command line.
"""

from ml_collections import ConfigDict

D3_NOUNS = {
    "books": "books",
    "games": "video games",
    "toys": "toys and games",
    "cds": "musics",
    "steam": "games",
    "sports": "sports and outdoors",
    "office": "office products",
    "instruments": "music instruments",
    "pets": "pet supplies",
    "arts": "arts products",
    "movies": "movie",
}
"""Noun of each category in the prompts of D3 and IGD, by the word after a config's colon; their sentence adds an s."""

BIGREC_NOUNS = {
    "books": "books",
    "games": "video games",
    "toys": "toys",
    "cds": "CDs",
    "steam": "games",
    "sports": "outdoor sports equipment",
    "office": "office products",
    "instruments": "musical instruments",
    "movies": "movies",
    "beauty": "beauty products",
    "clothing": "clothing",
    "electronics": "electronics",
    "food": "foods",
    "home": "home products",
    "kindle": "Kindle books",
    "music": "digital music",
}
"""The same for the prompts of BIGRec (games and movies) and MSL; igd_jax/data/templates.py has their verbs."""


def with_prompt(
    config: ConfigDict, prompt: str, category: str, *, nouns: dict[str, str], where: str, also: tuple[str, ...] = ()
) -> None:
    """Set the authors' prompt and the noun of a category.

    Args:
      where: config file and what stands before the word, for the message.
      also: further words that may stand there.

    Raises:
      ValueError: the category is none of `nouns`.
    """
    if category not in nouns:
        raise ValueError(f"configs/{where}{category} is unknown; expected one of {', '.join((*also, *nouns))}")
    config.data.prompt, config.data.category = prompt, nouns[category]


def get_config() -> ConfigDict:
    """The defaults: own data, our prompt, the published optimizer (docs/methods.md, Published recipe)."""
    config = ConfigDict()

    config.data = ConfigDict()
    config.data.dir = ""  # folder written by igd_jax.prepare, by path or URL (gs://, s3://, file://)
    config.data.prompt = "plain"  # igd_jax/data/templates.py: plain, or of the authors: igd, d3, bigrec, msl, letter
    config.data.category = "items"  # noun for the items inside the prompt
    config.data.max_length = 512  # tokens of prompt and target in training; ranking reads all that fits: docs/data.md
    config.data.candidates = "catalogue"  # items in the trie; also train (published), warm, cold, or a file of ids
    config.data.max_examples = 0  # rows of the train split that are used, evenly spread; 0 = all

    config.tokenizer = ConfigDict()
    config.tokenizer.path = ""  # Hugging Face folder; empty = that of model.path, or else one trained on the titles
    config.tokenizer.vocab_size = 2048  # most ids of a tokenizer that is trained

    config.identifiers = ConfigDict()
    config.identifiers.name = "titles"  # how an item is written: a file of igd_jax/identifiers

    config.model = ConfigDict()
    config.model.path = ""  # Hugging Face folder of a decoder or a T5; empty = random weights by model.config
    config.model.config = ""  # named size (models/config.py, t5_config.py) without path; empty: pico on a CPU, or mini
    config.model.dropout = -1.0  # of a T5 in training, 0 = none; -1 = that of its config.json (named sizes: 0.1)
    config.model.dtype = "float32"  # of the computation: float32 or bfloat16
    config.model.param_dtype = "float32"  # of the stored weights; bfloat16 trains as train.bfloat16 says
    config.model.lora_rank = 0  # r of low-rank adapters (LoRA) on a frozen decoder; 0 = all weights are tuned
    config.model.lora_alpha = 16.0  # adapters are scaled by alpha / r; SETRec, BIGRec: 16 at r 8; IGD: 64 at r 32
    config.model.lora_targets = "q,k,v,o,gate,up,down"  # as IGD (QLoRA); SETRec: q,v,o; BIGRec: q,v
    config.model.lora_dropout = 0.05  # of each adapter's input in training; published: 0.05 (IGD, BIGRec), SETRec: 0.02
    config.model.quantize = ""  # frozen weights beneath adapters: int8, nf4 (published: nf4 from 7B on) or as they are
    config.model.attention = "xla"  # on any device; cudnn: NVIDIA's kernel, with dtype bfloat16
    config.model.remat = "dots"  # kept of each layer for gradients: all (none), products with weights, its input (full)

    config.method = ConfigDict()
    config.method.name = "igd"  # a file of igd_jax/methods
    config.method.args = ConfigDict()

    config.loss = ConfigDict()
    config.loss.normalizer = "global"  # divide once per step (global) or per micro-batch as published (micro_batch)

    config.train = ConfigDict()
    config.train.global_batch_size = 128  # rows per step over all devices; published: 128
    config.train.micro_batch_size = 16  # rows per forward pass over all devices; published: 16
    config.train.packing = "auto"  # rows are padded (none), or stand in packs side by side (rows) or as trees of common
    # beginnings (trees), which then have as many tokens as micro_batch_size rows; auto: rows if packs are possible and
    # take fewer operations, else none
    config.train.pack_length = 0  # tokens of a pack; 0 = the cheapest: those of the longest row, or 256 to 1,024
    config.train.shuffle = "rows"  # what each epoch shuffles: rows, or users, whose rows then share most in trees
    config.train.learning_rate = 1e-4  # peak; published: 1e-4
    config.train.num_epochs = 3  # published: 3
    config.train.num_steps = 0  # updates in all; 0 = by num_epochs
    config.train.warmup_steps = 20  # published: 20
    config.train.schedule = "linear"  # to 0 after warm-up; also cosine, constant
    config.train.clip_norm = 1.0  # global gradient norm; published (Trainer default): 1
    config.train.weight_decay = 0.0  # of all weights, those of norms too; published (Trainer default): 0
    config.train.bfloat16 = "master"  # such weights have a float32 copy; or stochastic rounding, or pure (published)
    config.train.seed = 42  # of all that is drawn: row order, first weights, dropout, negatives, rounding
    config.train.patience = 1  # evaluations without a better loss before stopping; 0 = never stop early; published: 1
    config.train.eval_every_steps = 0  # updates between evaluations of the loss; 0 = once per epoch, as published
    config.train.eval_protocol = "rows"  # every row of valid, or the first one of each user (users; SETRec)
    config.train.eval_examples = 0  # rows of valid in each evaluation of the loss, evenly spread; 0 = all
    config.train.checkpoint_every_steps = 200  # updates between checkpoints for resuming
    config.train.log_every_steps = 10  # updates between lines of the log; slow ones are told more often
    config.train.show_sample = True  # each evaluation of the loss shows what would be recommended to one user of valid
    config.train.wandb = ""  # project of Weights & Biases that also gets the metrics; empty = none, and no network

    config.decode = ConfigDict()
    config.decode.alpha = 0.2  # favours high-gain tokens, 0 to 1; 0 = plain beam search; authors: about 0.2
    config.decode.length_penalty = 0.0  # power of the length that divides scores; 0 = sum (D3), 1 = mean (BIGRec)
    config.decode.temperature = 1.0  # divides log-probabilities, under D3 logits; no effect on the order under IGD
    config.decode.normalize = "vocabulary"  # log-probabilities over all tokens (published), or the legal children only
    config.decode.num_beams = 10  # width of the beam; published: 10
    config.decode.top_k = 0  # length of the lists; 0 = num_beams, and no more where they come from a beam search
    config.decode.max_new_tokens = 0  # longest title that can be written, tokens with EOS; 0 = the longest candidate
    config.decode.candidates = ""  # items that may be recommended, named as in data.candidates; empty = data.candidates
    config.decode.allowed = ""  # file with a JSON list of titles or ids per row of eval.split, its candidates
    config.decode.exclude_history = False  # items of a history are not recommended after it
    config.decode.collaborative = ""  # scores of items for D3 and BIGRec: popularity, or the folder of a SASRec run
    config.decode.batch_size = 16  # users at a time; published: 16 or 32
    config.decode.search = (
        "jump"  # beam by whole chains per call; stepwise = by tokens; exact = all candidates, no beam
    )
    config.decode.budget = -1  # jump: tokens per user and call, filled by prospect; 0 = no more than needed; -1 = auto

    config.eval = ConfigDict()
    config.eval.split = "test"  # rows that are ranked: test, valid or train
    config.eval.protocol = "rows"  # each row has one target (rows), or each user all of theirs (users; SETRec)
    config.eval.max_examples = 0  # rows of the split, or users, evenly spread; 0 = all
    config.eval.ks = (1, 3, 5, 10)  # cut-offs of HR@k, or Recall@k of users, and NDCG@k

    config.mesh = ConfigDict()
    config.mesh.data = -1  # copies of the model, each with rows of its own; -1 = as many as there are devices for
    config.mesh.fsdp = 1  # devices over which the weights and rows of a copy are split; 1 = weights are whole
    config.mesh.tensor = 1  # devices that share the heads, inner width and vocabulary of the same rows
    return config
