"""Shardings of arrays over the devices of a mesh: replicated, or split by row."""

from jax.sharding import Mesh, NamedSharding, PartitionSpec


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def divisible(n_rows: int, mesh: Mesh) -> int:
    """`n_rows` rounded up to a multiple of the number of devices."""
    return -(-n_rows // mesh.size) * mesh.size
