"""How arrays lie on the devices of a mesh: whole on each, or dealt out by their rows."""

from jax.sharding import Mesh, NamedSharding, PartitionSpec


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def divisible(n_rows: int, mesh: Mesh) -> int:
    """The first number from `n_rows` on that the devices divide."""
    return -(-n_rows // mesh.size) * mesh.size
