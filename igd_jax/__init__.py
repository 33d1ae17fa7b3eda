"""Fine-tune language models to recommend the next item by writing its title (IGD, arXiv 2506.13229)."""

from importlib.metadata import version as _version

__version__ = "0.1.0"


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
