"""BIGRec on a few titles: catalogue, models, engines, and embeddings of texts one batch at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny_run import HF_CONFIG, TITLES, context_of, decode_options

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Recommendations, Remainders, TextBatch
from igd_jax.data.remainders import remainders
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.decoding.engine import recommend
from igd_jax.decoding.grounding import embed_texts
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.bigrec import BIGRec, Grounding
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf

TOKENIZER = train_tokenizer(TITLES, vocab_size=300)
COUNTS = np.random.default_rng(0).integers(0, 9, len(TITLES))
K, LONGEST = 6, 8


def make_model(seed: int) -> Decoder:
    """Random weights, large enough that texts differ."""

    @nnx.jit
    def make() -> Decoder:
        graph, weights = nnx.split(Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(seed)))
        return nnx.merge(graph, jax.tree.map(lambda x: x * 4.0, weights))

    return make()


def index_over(candidates: np.ndarray) -> ItemIndex:
    """The last item shares its title with item 3."""
    return build_index(TITLES, TOKENIZER.encode_titles(TITLES), COUNTS, candidates=candidates)


def remainders_of(tokenizer: Tokenizer, *, quote: str = "") -> Remainders:
    """What remains of each token at the ends of a text."""
    return Remainders(*map(jnp.asarray, remainders(tokenizer, vocab_size=HF_CONFIG["vocab_size"], quote=quote)))


def engine_of(method: BIGRec, model: Decoder, index: ItemIndex, *, top_k: int = K, **context) -> Grounding:
    options = decode_options(index, top_k=top_k, max_length=LONGEST, length_penalty=1.0)
    return method.engine(context_of(index, **context), model, options)


def ask(engine: Grounding, batch: TextBatch) -> Recommendations:
    return jax.tree.map(np.asarray, recommend(engine, batch))


@nnx.jit
def embedded(model: Decoder, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    return embed_texts(model, tokens, lengths, bos=None)


def embed(model: Decoder, rows: list[list[int]]) -> np.ndarray:
    """Rows of ids without newline and EOS, in one batch."""
    lengths = jnp.asarray([len(row) for row in rows], jnp.int32)
    return np.asarray(embedded(model, jnp.asarray(Ragged.from_lists(rows).pad(16)), lengths), np.float64)
