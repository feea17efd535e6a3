"""What a run leaves to read: metrics.jsonl, mirrored to Weights & Biases when that is switched on."""

import json
import time
import warnings
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np


class Writer:
    """Appends one JSON object a line to `workdir/metrics.jsonl`; lines after `start_step` are dropped first.

    wandb: {"mode": "disabled" | "offline" | "online", "project": str, "name": str, "id": str}. Nothing that goes wrong
    with it stops the run: it is said once, and the mirror ends. Use as a context manager.
    """

    def __init__(self, workdir: Path, start_step: int, wandb: dict[str, Any], config: dict[str, Any]):
        self.path = Path(workdir) / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.path.write_text("".join(line + "\n" for line in lines if _step(line) <= start_step))
        self._file = self.path.open("a")
        self._wandb = None
        if wandb["mode"] != "disabled":
            self._try(lambda: self._start_wandb(workdir, wandb, config))

    def _start_wandb(self, workdir: Path, options: dict[str, Any], config: dict[str, Any]) -> None:
        import wandb

        name = options["name"] or Path(workdir).absolute().name
        self._wandb = wandb.init(
            dir=str(workdir),
            config=config,
            mode=options["mode"],
            project=options["project"],
            name=name,
            id=options["id"],
            resume="allow",
        )

    def _try(self, action) -> None:
        try:
            action()
        except Exception as error:
            self._wandb = None
            warnings.warn(f"wandb is off from here on ({error}); metrics.jsonl goes on.", stacklevel=3)

    def scalars(self, step: int, **values: SupportsFloat) -> None:
        """One line: step, the values, and the time in seconds since the epoch."""
        values = {name: float(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **values, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._try(lambda: self._wandb.log(values, step=step))

    def image(self, step: int, name: str, sheet: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3), for wandb only."""
        if self._wandb is not None:

            def log():
                import wandb

                self._wandb.log({name: wandb.Image(sheet)}, step=step)

            self._try(log)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        if self._wandb is not None:
            self._try(self._wandb.finish)


def _step(line: str) -> float:
    """The step of a line; of one that a kill cut short, infinity."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
