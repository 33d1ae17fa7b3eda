"""The roles of a file's columns: ``--columns=user=userId,title=name``, and the line that says which are read."""

import csv
from collections.abc import Collection, Mapping, Sequence

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.shown import listed, shown
from igd_jax.data.prepared import ITEM_FIELDS

REQUIRED = ("user", "item", "timestamp", "title")
ROLES = (*REQUIRED, "rating", *ITEM_FIELDS)
"""Roles that a column can have, in reading order."""


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``role=name,role=name`` into names by role; a pair whose name contains a comma is quoted.

    Raises:
      InputError: a malformed pair, an unknown role, or a role given twice.
    """
    named: dict[str, str] = {}
    try:
        pairs = next(csv.reader([text]), [])
    except csv.Error as error:
        raise InputError(
            f"--columns={shown(text)} is not understood; expected pairs such as user=userId ({error})"
        ) from None
    for pair in pairs:
        role, _, name = pair.partition("=")
        if role not in ROLES or not name or role in named:
            raise InputError(
                f"--columns={shown(text)}: {shown(pair)} is not understood; expected pairs such as user=userId "
                f"separated by commas, for some of {', '.join(ROLES)}, each once"
            )
        named[role] = name
    return named


def choose_columns(
    header: Sequence[str], named: Mapping[str, str], *, where: str, rating: bool, unusable: Collection[str] = ()
) -> dict[str, str]:
    """Choose the columns to read, by role in the order of `ROLES`, and print which are read as what and which are not.

    A role without an explicit name has the column of its own name. Required columns must exist; texts are optional.

    Args:
      header: names of all columns.
      named: explicit names by role, from `parse_columns`.
      where: prefix of error messages.
      rating: whether ratings are needed; otherwise they are never read.
      unusable: columns that are read only if named explicitly.

    Raises:
      InputError: a column is missing, its name occurs twice, or it would have two roles.
    """
    required = (*REQUIRED, "rating") if rating else REQUIRED
    found = set(header) - set(unusable) - set(named.values())
    chosen = {
        role: named.get(role, role)
        for role in ROLES
        if role in required or (role != "rating" and (role in named or role in found))
    }
    if missing := [role for role, name in chosen.items() if name not in header]:
        raise InputError(
            f"{where}: no column {', '.join(shown(chosen[role])[1:-1] for role in missing)}; name yours with "
            f"--columns={','.join(f'{role}=NAME' for role in missing)}, out of {listed(header) or 'none'}"
        )
    if twice := [name for name in chosen.values() if header.count(name) > 1]:
        raise InputError(f"{where}: {header.count(twice[0])} columns are called {shown(twice[0])}; rename all but one")
    if len(set(chosen.values())) < len(chosen):
        pairs = ",".join(f"{role}={name}" for role, name in chosen.items())
        raise InputError(f"{where}: a column is one thing only, but they are {pairs}; see --columns")
    taken = [name if role == name else f"{name} as {role}" for role, name in chosen.items()]
    others = [name for name in header if name not in chosen.values()]
    say(f"columns: {', '.join(taken)}" + (f"; not read: {listed(others)}" if others else ""))
    return chosen
