"""A workdir that version 0.1.0 has saved: it is loaded, evaluated, sampled from and gone on from ever after.

Eight updates on the digits with ten classes; made by `python -m score_sde` with --mode=train, sample and eval.
"""

import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

import score_sde
from score_sde.cli.runs import _of_workdir
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.training.run import train

KEPT = Path(__file__).parent / "golden" / "workdir_0_1_0.tar.gz"
LATER = {"metrics.features": "none", "eval.batch_size": 64, "eval.rtol": 1e-2, "eval.atol": 1e-2}
LATER |= {"sampling.num_samples": 8, "sampling.method": "ddim", "sampling.num_steps": 5}


@pytest.fixture
def kept(tmp_path):
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "digits"


def test_the_kept_workdir_is_evaluated_and_sampled_to_what_was_saved_with_it(kept, data_dir):
    before = json.loads((kept / "eval" / "report.json").read_text())["checkpoints"][0]
    with np.load(kept / "samples" / "step_00000008_ddim.npz") as stored:
        images = stored["images"]
    overrides = LATER | {"eval.enable_bpd": True, "data.data_dir": data_dir}
    config = get_config()
    config.update_from_flattened_dict(overrides)
    config = _of_workdir(kept, config, overrides)
    evaluate(config, kept, "again")
    after = json.loads((kept / "again" / "report.json").read_text())["checkpoints"][0]
    for figure in ("loss", "bits_per_dim"):
        np.testing.assert_allclose(after[figure]["mean"], before[figure]["mean"], rtol=1e-5)
    sample(config, kept)
    (name,) = json.loads((kept / "samples" / "index.json").read_text())
    with np.load(kept / "samples" / f"{name}.npz") as stored:  # one of the last bits may round to another level
        np.testing.assert_allclose(stored["images"].astype(int), images, atol=1)


def test_the_kept_workdir_is_gone_on_from_by_the_command_that_began_it_and_keeps_its_average(kept, data_dir):
    overrides = json.loads((kept / "launch.json").read_text())["overrides"]
    overrides |= {"training.n_iters": 9, "data.data_dir": data_dir}
    config = get_config()
    config.update_from_flattened_dict(
        {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    )
    assert config.optim.ema_schedule == "ramp"
    train(config, kept, overrides)
    assert config.optim.ema_schedule == "constant"
    steps = [json.loads(line)["step"] for line in (kept / "metrics.jsonl").read_text().splitlines()]
    assert (steps[0], steps[-1]) == (2, 9)
    state = score_sde.load(kept, 9, ema=False).both_weights()
    earlier = score_sde.load(kept, 8)
    rate = config.optim.ema_rate
    trees = (jax.tree.leaves(tree) for tree in (state["raw"], state["averaged"], earlier.params))
    for raw, averaged, old in zip(*trees, strict=True):
        np.testing.assert_allclose(averaged, rate * old + (1 - rate) * raw, atol=1e-6)
