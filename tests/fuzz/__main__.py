"""Damaged input of every kind, one command each: it ends in success, or in one line and a documented exit code.

    python -m tests.fuzz --cases=10000 --seed=0    as many cases, and a table by what was damaged
    python -m tests.fuzz --seed=0 --only=CASE      one case again

Nothing may be lost, left half-written, or changed in silence. Exit code 1 says that something was found.
"""

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.fuzz.cases import Ended
from tests.fuzz.pool import run


def table(ends: Iterable[Ended]) -> str:
    """Cases by what was damaged, in Markdown, and how they ended."""
    rows: defaultdict[str, list[Ended]] = defaultdict(list)
    for end in ends:
        rows[end.target].append(end)
    lines = ["| damaged | cases | successes | refusals | findings | CPU s per case |", "|---|---|---|---|---|---|"]
    rows["all"] = [end for group in list(rows.values()) for end in group]
    for name, group in rows.items():
        n_found = sum(bool(end.faults) for end in group)
        n_fine = sum(end.code == 0 and not end.faults for end in group)
        seconds = sum(end.seconds for end in group) / len(group)
        counts = (len(group), n_fine, len(group) - n_fine - n_found, n_found)
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} | {seconds:.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print what was found; 1 where that is something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="what the random numbers start from")
    parser.add_argument("--only", type=int, help="number of the one case to run")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    given = parser.parse_args(arguments)
    cases = range(given.cases) if given.only is None else [given.only]
    ends = []
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        for number, end in run(cases, Path(folder), seed=given.seed, n_workers=min(given.workers, len(cases))):
            ends.append(end)
            if end.faults or given.only is not None:
                print(f"--seed={given.seed} --only={number}: {end.target}: {end.told}")
                print(
                    *(f"    {fault}" for fault in end.faults or [f"exit code {end.code} {end.message}"]),
                    sep="\n",
                    flush=True,
                )
    print(table(ends))
    return int(any(end.faults for end in ends))


if __name__ == "__main__":
    sys.exit(main())
