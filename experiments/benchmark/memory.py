"""Memory that an update needs for each image of 256x256 and 1024x1024, and what fits on a GPU.

By the trace of the network's derivative, not by a program compiled for a CPU: there XLA drops rematerialisation.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_sde.configs.ve import celebahq_256_ncsnpp_continuous, celebahq_ncsnpp_continuous

from score_sde.runtime.memory import USABLE, tree_bytes
from score_sde.training.build import Experiment
from score_sde.training.memory_estimate import kept_bytes

NETWORKS = {
    "NCSN++ 256x256": celebahq_256_ncsnpp_continuous.get_config,
    "NCSN++ 1024x1024": celebahq_ncsnpp_continuous.get_config,
}
GPUS = {"80 GB": 80e9, "141 GB": 141e9}


def run(folder: Path) -> int:
    """Prints a row for each network, precision and choice of rematerialisation."""
    rows = []
    for name, get_config in NETWORKS.items():
        for precision in ("tf32", "bfloat16"):
            for remat in (False, True):
                config = get_config()
                config.training.update(precision=precision, remat=remat)
                fits = fitting(*shares(Experiment(config)))
                rows.append({"network": name, "precision": precision, "remat": remat} | fits)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(
        f"{'network':18s}{'features':>10s}{'remat':>7s}{'GB an image':>13s}{'GB besides':>12s}"
        + "".join(f"{g:>8s}" for g in GPUS)
    )
    for row in rows:
        fits = "".join(f"{row['largest_batch'][gpu]:8d}" for gpu in GPUS)
        figures = f"{row['image'] / 1e9:13.2f}{row['besides'] / 1e9:12.2f}"
        print(f"{row['network']:18s}{row['precision']:>10s}{row['remat']!s:>7s}{figures}{fits}")
    return 0


def shares(experiment: Experiment) -> tuple[int, int]:
    """Bytes of an image in an update, and besides it of the training state and the gradient."""
    return kept_bytes(experiment), tree_bytes((experiment.state_shapes, experiment.param_shapes))


def fitting(image: int, besides: int, sizes: Mapping[str, float] = GPUS) -> dict[str, Any]:
    """The largest batch that each GPU has room for."""
    largest = {name: int((USABLE * size - besides) // image) for name, size in sizes.items()}
    return {"image": image, "besides": besides, "largest_batch": largest}
