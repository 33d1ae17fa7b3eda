"""The tokenizer of a run."""

from pathlib import Path

from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.data.prepared import Prepared
from igd_jax.data.prompts import render
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.settings.settings import Settings


def choose_tokenizer(settings: Settings, workdir: Workdir, prepared: Prepared) -> Tokenizer:
    """The tokenizer of the run in the workdir, else that of the config, else one trained on the titles."""
    if workdir.config.is_file():
        return load_tokenizer(workdir.tokenizer)
    if settings.tokenizer.path:
        return load_tokenizer(Path(settings.tokenizer.path))
    say(f"training a tokenizer on {len(prepared.titles):,} titles")
    template = settings.data.template
    before, after = template.around
    texts = ["".join(render(template, [])), *(before + title + after for title in prepared.titles)]
    return train_tokenizer(texts, vocab_size=settings.tokenizer.vocab_size)
