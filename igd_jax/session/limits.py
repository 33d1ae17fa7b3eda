"""Limits in tokens, of prompts that are ranked for and of what is written after them."""

from dataclasses import fields

from igd_jax.core.errors import InputError
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import DecodeOptions
from igd_jax.models.load import config_of
from igd_jax.session.session import Session
from igd_jax.settings.sections import DecodeSettings

LONGEST = 2**31 - 1
"""Most tokens of a prompt where positions are relative, so that there are any number of them."""


def decode_options(decode: DecodeSettings, index: ItemIndex) -> DecodeOptions:
    """Options of decoding for the candidates of `index`."""
    same = {field.name: getattr(decode, field.name) for field in fields(DecodeOptions) if field.name != "max_length"}
    return DecodeOptions(**same, max_length=min(decode.max_new_tokens or index.longest, index.longest))


def check_max_length(session: Session) -> None:
    """Raise `InputError` if a prompt without a history has more tokens than a row of training may have."""
    limit, words = session.settings.data.max_length, session.prompts.n_words
    if limit < words:
        raise InputError(
            f"config.data.max_length is {limit}, but a prompt without a history has {words} tokens; raise it, better "
            "far above"
        )


def room_of_prompts(session: Session, index: ItemIndex) -> int:
    """Tokens that a prompt that is ranked for may have: what the longest answer leaves of the model's positions.

    Raises:
      InputError: they are too few for a prompt without a history.
    """
    settings, words = session.settings, session.prompts.n_words
    model, answer = settings.model.source, decode_options(settings.decode, index).max_length
    positions = config_of(model).max_positions
    if (most := positions - words) < answer:
        fewer = f"set config.decode.max_new_tokens to at most {most}, or " if most > 0 else ""
        raise InputError(
            f"a prompt without a history has {words} tokens and the longest answer {answer}, but {model} was made for "
            f"{positions} positions; {fewer}use another model"
        )
    return int(min(positions - answer, LONGEST))
