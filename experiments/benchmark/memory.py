"""Memory that an update needs for each image of 256x256 and 1024x1024, by the compiled program, and what fits."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.ve import celebahq_256_ncsnpp_continuous, celebahq_ncsnpp_continuous
from score_sde.build import Experiment
from score_sde.progress import bar
from score_sde.train import train_step

NETWORKS = {
    "NCSN++ 256x256": celebahq_256_ncsnpp_continuous.get_config,
    "NCSN++ 1024x1024": celebahq_ncsnpp_continuous.get_config,
}
GPUS = {"80 GB": 80e9, "141 GB": 141e9}
# On a CPU: quick to compile, and in the order that needs least memory, as on a GPU.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_enable_concurrency_optimized_scheduler": False}
USABLE = 0.9  # of a GPU's memory; the rest is the runtime's, and lost between allocations


def run(folder: Path) -> int:
    """Prints a row for each network, with and without rematerialisation; batches of 1 and 2 tell an image's share."""
    rows = []
    with bar("compiling", 4 * len(NETWORKS), "program") as progress:
        for name, get_config in NETWORKS.items():
            for remat in (False, True):
                sizes = []
                for batch in (1, 2):
                    sizes.append(program_bytes(get_config(), batch, remat=remat))
                    progress.update()
                rows.append({"network": name, "remat": remat, "bytes": sizes} | fitting(*sizes))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{'network':18s}{'remat':>7s}{'GB an image':>13s}{'GB besides':>12s}" + "".join(f"{g:>10s}" for g in GPUS))
    for row in rows:
        fits = "".join(f"{row['largest_batch'][gpu]:10d}" for gpu in GPUS)
        figures = f"{row['image'] / 1e9:13.2f}{row['besides'] / 1e9:12.2f}"
        print(f"{row['network']:18s}{row['remat']!s:>7s}{figures}{fits}")
    return 0


def program_bytes(config: Any, batch: int, **options: Any) -> int:
    """Arguments, results and what lies between them, of the update of one device."""
    config.training.update(options)
    experiment = Experiment(config)
    pixels = jax.ShapeDtypeStruct((batch, *experiment.image_shape), np.uint8)
    update = jax.jit(train_step(experiment), donate_argnums=(0,))
    memory = (
        update.lower(experiment.state_shapes, pixels)
        .compile(OPTIONS if jax.default_backend() == "cpu" else None)
        .memory_analysis()
    )
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def fitting(one: int, two: int) -> dict[str, Any]:
    """An image's bytes, those of the rest, and the largest batch that each GPU has room for."""
    image, besides = two - one, 2 * one - two
    return {
        "image": image,
        "besides": besides,
        "largest_batch": {name: int((USABLE * size - besides) // image) for name, size in GPUS.items()},
    }
