"""Takes score_sde's command line and writes its files in no time, for tests of what launches it.

An optim.lr of 13 is a mistake, of 14 a crash, of 15 a crash at the first attempt, of 16 a stop at the first attempt; of
17 nothing is written.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    flags = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
    workdir, mode = Path(flags["workdir"]), flags["mode"]
    workdir.mkdir(parents=True, exist_ok=True)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with (workdir / "calls.txt").open("a") as calls:
        calls.write(f"{mode} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
    (workdir / "flags.txt").write_text(os.environ.get("XLA_FLAGS", ""))
    attempts = (workdir / "calls.txt").read_text().count(mode)
    if mode == "train":
        train(workdir, flags, attempts, stopped)
    else:
        evaluate(workdir, flags)


def train(workdir: Path, flags: dict[str, str], attempts: int, stopped: list[bool]) -> None:
    lr, seed, total = (float(flags.get(f"config.{key}", default)) for key, default in DEFAULTS.items())
    if lr == 13:
        print("score_sde: This learning rate brings bad luck; choose another.", file=sys.stderr)
        sys.exit(2)
    if lr == 14 or (lr == 15 and attempts == 1):
        raise MemoryError("no more")
    if lr == 16 and attempts == 1:
        sys.exit(75)
    if lr == 17:
        return
    (workdir / "checkpoints").mkdir(exist_ok=True)
    (workdir / "values.json").write_text(json.dumps({"lr": lr, "seed": seed}))
    start = max((int(path.name) for path in (workdir / "checkpoints").iterdir()), default=0)
    for step in range(start + 1, int(total) + 1):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        with (workdir / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"step": step, "training_loss": lr / step, "eval_loss": lr / step}) + "\n")
        (workdir / "checkpoints" / str(step)).mkdir()
        if stopped:
            sys.exit(75)


def evaluate(workdir: Path, flags: dict[str, str]) -> None:
    values = json.loads((workdir / "values.json").read_text())
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    snr = float(flags.get("config.sampling.snr", 0.16))
    entry = {"step": step, "loss": {"mean": values["lr"] * snr + values["seed"] / step, "standard_error": 0.5}}
    figure = {"mean": 10 * snr, "standard_error": 0.05}
    metrics = {"frechet_distance[features=fake]": figure, "fingerprint": "0123456789ab", "protocol": {"snr": snr}}
    entry |= {"bits_per_dim": {"mean": 3 + snr, "standard_error": 0.01}}
    entry |= {"sampling": {"num_samples": 8, "nfe": 100.0, "metrics": metrics}}
    folder = workdir / flags["eval_folder"]
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"checkpoints": [entry], "devices": ["fake"], "complete": True}))


DEFAULTS = {"optim.lr": 1.0, "seed": 42, "training.n_iters": 4}

if __name__ == "__main__":
    main()
