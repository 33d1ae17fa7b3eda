"""Of processes that run together, only the first writes files and prints. A single process is the first."""

import sys


def is_first() -> bool:
    """Whether this process writes and prints.

    A program that has not imported jax is a single process. It is not imported here, as `jax.process_index`
    initialises the devices.
    """
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0
