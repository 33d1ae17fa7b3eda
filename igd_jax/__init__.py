"""Fine-tune language models to recommend the next item by writing its title (IGD, arXiv 2506.13229).

    import igd_jax

    recommender = igd_jax.load("runs/igd")
    recommender.recommend(["Title A", "Title B"], k=10)

Names for notebooks are imported when they are first asked for, so that importing the package costs nothing.
"""

import importlib
from collections.abc import Mapping
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igd_jax.core.errors import InputError
    from igd_jax.evaluation.predictions import Result
    from igd_jax.session.recommender import Recommender
    from igd_jax.session.requests import Request
    from igd_jax.session.results import Answer, Answers, Explanation, Token

__version__ = "0.2.0"
__all__ = ["Answer", "Answers", "Explanation", "InputError", "Recommender", "Request", "Result", "Token", "load"]

_MODULES = {
    "Answer": "session.results",
    "Answers": "session.results",
    "Explanation": "session.results",
    "InputError": "core.errors",
    "Recommender": "session.recommender",
    "Request": "session.requests",
    "Result": "evaluation.predictions",
    "Token": "session.results",
}


if not TYPE_CHECKING:  # which would take any name for one of the package, of any type

    def __getattr__(name: str) -> Any:
        """One of the names of `__all__`."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


def load(run: str | Path, changes: Mapping[str, Any] | None = None) -> "Recommender":
    """Load the recommender of a run, which answers any number of requests (docs/python.md).

    Args:
      run: folder of the run.
      changes: fields of the config by their full names, such as ``{"decode.alpha": 0.1}``.

    Raises:
      InputError: there is no run, or the config does not accept a change.
    """
    from igd_jax.session.recommender import Recommender  # slow to import

    return Recommender.load(run, changes)


def _check_versions() -> None:
    """Fail with one plain line on the one installable pair that cannot work."""

    def number(package: str) -> tuple[int, ...]:
        return tuple(int(part) for part in _version(package).split(".")[:3] if part.isdigit())

    if number("jax") >= (0, 11, 1) and number("flax") < (0, 12, 12):
        raise ImportError(
            f"jax {_version('jax')} does not work with flax {_version('flax')}: "
            "run 'pip install \"flax>=0.12.12\"' (Python 3.12+) or 'pip install \"jax<0.11\"' (Python 3.11)."
        )


_check_versions()
