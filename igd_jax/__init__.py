"""Fine-tune language models to recommend the next item by writing its title (IGD, arXiv 2506.13229).

Names for notebooks are imported when they are first asked for, so that importing the package costs nothing.
"""

import importlib
from importlib.metadata import version as _version
from typing import Any

__version__ = "0.2.0"
__all__ = ["Answer", "InputError", "Recommender", "Request", "Result"]

_MODULES = {
    "Answer": "session.recommender",
    "InputError": "core.errors",
    "Recommender": "session.recommender",
    "Request": "session.requests",
    "Result": "evaluation.predictions",
}


def __getattr__(name: str) -> Any:
    """One of the names of `__all__`."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


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
