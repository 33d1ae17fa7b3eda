"""Which of the processes that run together writes files and talks: the first. A process alone is the first."""

import sys


def is_first() -> bool:
    """Whether this process writes and talks.

    A program that has not imported jax runs alone, and stays without: `jax.process_index` starts the devices.
    """
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0
