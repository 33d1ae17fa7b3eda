"""The size of a model: chosen where the config leaves it open, and large enough for the texts."""

from dataclasses import replace

import jax

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.methods.base import Method
from igd_jax.models.config import LARGE, SMALL
from igd_jax.models.load import config_of
from igd_jax.settings.config_flags import run_config
from igd_jax.settings.settings import Settings


def sized(settings: Settings, method: Method, workdir: Workdir) -> Settings:
    """The settings with the size of the backbone filled in, if `config.model.config` is empty and there is no path.

    It is that of the run in the workdir, if there is one; else it is chosen by the device, and printed. So is, before
    there is a run, which fields are not read.
    """
    model = settings.model
    if not workdir.config.is_file():
        _tell_unread(settings, method)
    if model.config or model.path or not method.backbones:
        return settings
    if workdir.config.is_file():
        name = run_config(workdir).model.config
    else:
        is_cpu = jax.default_backend() == "cpu"
        name, other = (SMALL, LARGE) if is_cpu else (LARGE, SMALL)
        why = "there is only a CPU" if is_cpu else "there is an accelerator"
        say(f"model: {name}, as config.model has no path and {why}; another size: --config.model.config={other}")
    return replace(settings, model=replace(model, config=name))


def _tell_unread(settings: Settings, method: Method) -> None:
    """Print which of the fields that name a model do not, if there are some."""
    model = settings.model
    if not method.backbones and model.source:
        say(f"model: {settings.method.name} has one of its own, whatever config.model.path and config.model.config say")
    elif model.path and model.config:
        say(f"model: that of config.model.path, whatever config.model.config ({model.config}) says")


def check_positions(settings: Settings, method: Method) -> None:
    """Raise `InputError` if a model of text was made for fewer positions than prompt and target may have together."""
    name, limit = settings.model.source, settings.data.max_length
    if method.inputs == "text" and name and limit > (positions := config_of(name).max_positions):
        raise InputError(
            f"config.data.max_length is {limit}; expected at most {positions}, the positions that {name} was made for"
        )
