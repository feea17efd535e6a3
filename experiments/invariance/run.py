"""Every case of `cases.CASES` against one device, as a table."""

import sys
import tempfile
from pathlib import Path

from score_sde.experiments.invariance.cases import CASES, REFERENCES, difference, missed, run

from score_sde.runtime.progress import bar


def table() -> int:
    """Prints the table; 1 if a bound is missed."""
    failed = []
    with tempfile.TemporaryDirectory() as scratch, bar("cases", len(CASES) + len(REFERENCES), "case") as progress:
        references = {}
        for network, case in REFERENCES.items():
            references[network] = run(case, Path(scratch))
            progress.update()
        rows = []
        for name, case in CASES.items():
            result, reference = run(case, Path(scratch)), references[case.network]
            apart = difference(result, reference)
            failed += [f"{name}: {', '.join(missed(apart))}"] if missed(apart) else []
            share = result["state_bytes"] / reference["state_bytes"]
            numbers = " | ".join(f"{value:.1e}" if value else "0" for value in apart[1:])
            rows.append(f"| {name} | {'equal' if apart.noise_equal else 'NOT EQUAL'} | {numbers} | {share:.2f} |")
            progress.update()
    print("| against 1 device | noise | losses | parameters | samples | coupled samples | bits/dim | state |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    for line in failed:
        print(f"invariance: out of bounds in {line}", file=sys.stderr)
    return 1 if failed else 0
