"""The sections of the config as frozen dataclasses: each field with its type and the check of its value.

Fields have the config's names; `configs/common.py` documents their meaning, unit and source. A new field is added in
these two places only; one of `config.decode` that methods read, in `methods.base.DecodeOptions` too. Bounds exclude
values that are certainly mistakes, not values that are merely unwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from igd_jax.core.allowed import CANDIDATES
from igd_jax.data.collaborative import FILE as COLLABORATIVE
from igd_jax.data.prepared import SPLITS
from igd_jax.data.templates import TEMPLATES, Template, filled
from igd_jax.decoding.normalizing import NORMALIZE
from igd_jax.decoding.search import SEARCHES
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.models import config as decoders
from igd_jax.models import quantized, t5_config
from igd_jax.models.attention import ATTENTION
from igd_jax.models.layers import REMAT
from igd_jax.models.lora import TARGETS, LoRA
from igd_jax.settings.checks import Existing, OneOf, Range, SomeOf, Text
from igd_jax.training.optimizer import BFLOAT16, SCHEDULES
from igd_jax.training.step import NORMALIZERS

PACKING = AUTO, PADDED, ROWS, TREES = ("auto", "none", "rows", "trees")
DTYPES = ("float32", "bfloat16")
MANY = 1_000_000_000
AllOrSome = Annotated[int, Range(1, MANY, "a number of rows", also=(0, "for all"))]
Batch = Annotated[int, Range(1, 1_048_576, "a number of rows")]
Updates = Annotated[int, Range(1, MANY, "a number of updates")]
DType = Annotated[str, OneOf(DTYPES)]
ITEM_FILE = "a file with one item id per line"


PREPARED = Existing("a folder that igd_jax.prepare has written; prepare one and pass it", ("meta.json",), by_url=True)


@dataclass(frozen=True)
class DataSettings:
    """`config.data`."""

    dir: Annotated[str, PREPARED]
    prompt: Annotated[str, OneOf(sorted(TEMPLATES))]
    category: Annotated[str, Text(1, 200)]
    max_length: Annotated[int, Range(1, 1_048_576, "a number of tokens")]
    candidates: Annotated[str, Existing(ITEM_FILE, words=CANDIDATES)]
    max_examples: AllOrSome

    @property
    def template(self) -> Template:
        """The template of prompts and answers, with its nouns."""
        return filled(self.prompt, category=self.category)


TOKENIZER = Existing(
    "a Hugging Face folder; give one to config.tokenizer.path", ("tokenizer.json",), words=("",), by_url=True
)


@dataclass(frozen=True)
class TokenizerSettings:
    """`config.tokenizer`; `path` defaults to that of the model; empty = a tokenizer is trained."""

    path: Annotated[str, TOKENIZER]
    vocab_size: Annotated[int, Range(257, 1_048_576, "a number of ids (256 bytes, the end, and merges)")]


@dataclass(frozen=True)
class IdentifierSettings:
    """`config.identifiers`; the names are listed by `identifiers.base`."""

    name: Annotated[str, Text(1, 100)]


_MODEL_FOLDER = (
    "a Hugging Face model folder with safetensors weights; download the whole model, such as by hf download ID "
    "--local-dir=FOLDER, and give its path"
)
WEIGHTS = Existing(_MODEL_FOLDER, ("*.safetensors",))
"""What a model folder holds beside its config, unless a run has weights in their place."""


@dataclass(frozen=True)
class ModelSettings:
    """`config.model`; dtypes by name, as ``jnp.dtype`` takes them."""

    path: Annotated[str, Existing(_MODEL_FOLDER, ("config.json",), words=("",), by_url=True)]
    config: Annotated[str, OneOf((*decoders.NAMED, *t5_config.NAMED, ""))]
    dropout: Annotated[float, Range(0, 0.99, "a probability", also=(-1, "for that of the model"))]
    dtype: DType
    param_dtype: DType
    lora_rank: Annotated[int, Range(1, 16_384, "a rank", also=(0, "to tune all weights"))]
    lora_alpha: Annotated[float, Range(1e-6, 1_000_000, "a number")]
    lora_targets: Annotated[str, SomeOf(TARGETS)]
    lora_dropout: Annotated[float, Range(0, 0.99, "a probability")]
    quantize: Annotated[str, OneOf(("", *quantized.KINDS))]
    remat: Annotated[str, OneOf(REMAT)]
    attention: Annotated[str, OneOf(ATTENTION)]

    @property
    def source(self) -> str:
        """Folder or named size of the backbone; empty while neither is chosen."""
        return self.path or self.config

    @property
    def lora(self) -> LoRA | None:
        """Settings of the adapters; None if all weights are tuned."""
        if not self.lora_rank:
            return None
        return LoRA(self.lora_rank, self.lora_alpha, self.lora_targets, self.lora_dropout)


@dataclass(frozen=True)
class MethodSettings:
    """`config.method`; arguments are checked by the method itself."""

    name: Annotated[str, Text(1, 100)]
    args: Mapping[str, Any]


@dataclass(frozen=True)
class LossSettings:
    """`config.loss`."""

    normalizer: Annotated[str, OneOf(NORMALIZERS)]


@dataclass(frozen=True)
class TrainSettings:
    """`config.train`."""

    global_batch_size: Batch
    micro_batch_size: Batch
    packing: Annotated[str, OneOf(PACKING)]
    pack_length: Annotated[int, Range(1, 1_048_576, "a number of tokens", also=(0, "for the cheapest"))]
    shuffle: Annotated[str, OneOf(("rows", "users"))]
    learning_rate: Annotated[float, Range(1e-12, 1e30, "a rate", also=(0, "to change nothing"))]
    num_epochs: Annotated[int, Range(0, 1_000_000, "a number of epochs")]
    num_steps: Annotated[int, Range(1, MANY, "a number of updates", also=(0, "to go by num_epochs"))]
    warmup_steps: Annotated[int, Range(0, MANY, "a number of updates")]
    schedule: Annotated[str, OneOf(SCHEDULES)]
    clip_norm: Annotated[float, Range(1e-12, 1e30, "a gradient norm (a large one clips nothing)")]
    weight_decay: Annotated[float, Range(0.0, 1000.0, "a decay")]
    bfloat16: Annotated[str, OneOf(BFLOAT16)]
    seed: Annotated[int, Range(0, 2**32 - 1, "a seed")]
    patience: Annotated[int, Range(1, MANY, "a number of evaluations", also=(0, "to never stop early"))]
    eval_every_steps: Annotated[int, Range(1, MANY, "a number of updates", also=(0, "for one epoch"))]
    eval_protocol: Annotated[str, OneOf(tuple(PROTOCOLS))]
    eval_examples: AllOrSome
    checkpoint_every_steps: Updates
    log_every_steps: Updates
    show_sample: bool
    wandb: Annotated[str, Text(0, 128)]


LONGEST_LIST = 100_000
COLLABORATIVE_FOLDER = "the folder of a finished SASRec run; train one by configs/sasrec.py"


@dataclass(frozen=True)
class DecodeSettings:
    """`config.decode`; `top_k` and `candidates` have their effective values, never 0 or empty."""

    alpha: Annotated[float, Range(0, 1, "a discount")]
    length_penalty: Annotated[float, Range(-10, 10, "a power of the length, 0 for sums,")]
    temperature: Annotated[float, Range(0.001, 1000, "a divisor of log-probabilities")]
    normalize: Annotated[str, OneOf(NORMALIZE)]
    search: Annotated[str, OneOf(SEARCHES)]
    num_beams: Annotated[int, Range(1, 1024, "a number of beams")]
    top_k: Annotated[int, Range(1, LONGEST_LIST, "a length of lists", also=(0, "for num_beams"))]
    max_new_tokens: Annotated[int, Range(1, 65_536, "a number of tokens", also=(0, "for the longest candidate"))]
    candidates: Annotated[str, Existing(ITEM_FILE, words=("", *CANDIDATES))]
    allowed: Annotated[str, Existing("a file with a JSON list of titles or item ids per row", words=("",))]
    exclude_history: bool
    collaborative: Annotated[str, Existing(COLLABORATIVE_FOLDER, (COLLABORATIVE,), words=("", "popularity"))]
    batch_size: Annotated[int, Range(1, 1_048_576, "a number of users")]
    budget: Annotated[int, Range(0, 65_536, "a number of tokens", also=(-1, "to go by batch and device"))]


@dataclass(frozen=True)
class EvalSettings:
    """`config.eval`; `ks` are ascending and distinct."""

    split: Annotated[str, OneOf(SPLITS)]
    protocol: Annotated[str, OneOf(tuple(PROTOCOLS))]
    max_examples: AllOrSome
    ks: Annotated[tuple[int, ...], Range(1, LONGEST_LIST, "a length of lists")]


@dataclass(frozen=True)
class MeshSettings:
    """`config.mesh`."""

    data: Annotated[int, Range(1, 1_048_576, "a number of copies", also=(-1, "for as many as there are devices for"))]
    fsdp: Annotated[int, Range(1, 1_048_576, "a number of devices")]
    tensor: Annotated[int, Range(1, 1_048_576, "a number of devices")]
