"""Communication of devices in an update, by the program that is compiled for 1 to 8 of them, on this CPU."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

from score_sde.runtime.progress import bar

DEVICES = (1, 2, 4, 8)
COLLECTIVE = re.compile(r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
SHAPE = re.compile(r"(pred|[suf]\d+|bf16)\[([\d,]*)\]")
SIZES = {"pred": 1, "bf16": 2}


def run(folder: Path) -> int:
    """Prints bytes by kind of collective, for one copy of the parameters a device and for one shared by all."""
    rows = []
    with bar("compiling", 2 * len(DEVICES) - 1, "program") as progress:
        for devices in DEVICES:
            for fsdp in sorted({1, devices}):
                rows.append({"devices": devices, "fsdp": fsdp} | _by_process(devices, fsdp))
                progress.update()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        said = ", ".join(f"{kind} {size:,} bytes" for kind, size in row["collectives"].items()) or "nothing"
        shared = f"shared by {row['fsdp']}" if row["fsdp"] > 1 else "a copy each"
        print(f"{row['devices']} device(s), parameters ({row['parameters']:,} bytes) {shared}: {said}")
    return 0


def collectives(program: str) -> dict[str, int]:
    """Bytes that each kind of collective gives, of a compiled program's text."""
    bytes_by_kind: dict[str, int] = {}
    for result, kind in COLLECTIVE.findall(program):
        size = sum(
            math.prod(int(n) for n in shape.split(",") if n) * (SIZES.get(kind_of, 0) or int(kind_of[1:]) // 8)
            for kind_of, shape in SHAPE.findall(result)
        )
        bytes_by_kind[kind] = bytes_by_kind.get(kind, 0) + size
    return bytes_by_kind


def measure(fsdp: int) -> dict:
    """Bytes that this process's devices exchange, for the digits' network at 16 images a device."""
    import jax
    import numpy as np
    from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

    from score_sde.runtime import sharding
    from score_sde.runtime.memory import tree_bytes
    from score_sde.training.build import Experiment
    from score_sde.training.run import compiled_step

    experiment = Experiment(get_config())
    update = compiled_step(experiment, sharding.fully_sharded(experiment.state_shapes, fsdp))
    pixels = jax.ShapeDtypeStruct((16 * jax.device_count(), *experiment.image_shape), np.uint8)
    program = update.lower(experiment.state_shapes, pixels, None).compile().as_text()
    return {"parameters": tree_bytes(experiment.param_shapes), "collectives": collectives(program)}


def _by_process(devices: int, fsdp: int) -> dict:
    """JAX knows the number of its devices from its start."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    code = (
        "import json, score_sde; from score_sde.experiments.benchmark.scaling import measure; score_sde.configure(); "
        f"print(json.dumps(measure({fsdp})))"
    )
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
