"""Devices change no number: the short version of `experiments.invariance`, and what is literal here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import coupled
import member_losses
import numpy as np
import pytest
import tiny_pixels
from score_sde.experiments.invariance.cases import CASES, REFERENCE, REFERENCES, difference, missed, run

SCRIPT = Path(__file__).parent / "eight_devices.py"
WORKER = f"""
import sys
sys.path.append({str(SCRIPT.parent)!r})
import one_block
from score_sde.experiments.invariance import worker
one_block.use()
worker.main(sys.argv)
"""
SHORT = ("8 devices, fsdp=4", "checkpoint of 8, fsdp=4, on 1")


@pytest.fixture(scope="module")
def on_eight_devices() -> dict:
    """What `eight_devices.py` computes."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    result = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Runs of the cases of `SHORT`, after that of one device."""
    folder = tmp_path_factory.mktemp("invariance")
    cases = {"1 device": REFERENCE} | {name: CASES[name] for name in SHORT}
    return {name: run(case, folder, ["-c", WORKER]) for name, case in cases.items()}


@pytest.mark.parametrize("name", SHORT)
def test_devices_and_checkpoints_move_no_number(name, measured):
    case, result = CASES[name], measured[name]
    assert result["devices"].tolist() == [case.devices * case.processes, case.processes]
    assert missed(difference(result, measured["1 device"])) == []
    assert len(result["losses"]) == (2 if case.restore else 4)


@pytest.mark.parametrize("name", ["U-ViT, 8 devices, fsdp=4", "DiT, 8 devices, fsdp=4"])
def test_devices_move_no_number_of_a_transformer(name, tmp_path):
    case = CASES[name]
    one, eight = (run(case, tmp_path, ["-c", WORKER]) for case in (REFERENCES[case.network], case))
    assert missed(difference(eight, one)) == []
    assert int(eight["state_bytes"]) < 0.35 * int(one["state_bytes"])


def test_a_bound_that_is_missed_is_named(measured):
    reference = measured["1 device"]
    moved = reference | {"losses": reference["losses"] * 1.001, "noise": np.nextafter(reference["noise"], 9)}
    assert missed(difference(moved, reference)) == ["losses", "noise"]


def test_sharded_parameters_take_a_part_of_the_memory(measured):
    whole, quarter = (int(measured[name]["state_bytes"]) for name in ("1 device", "8 devices, fsdp=4"))
    assert 0.24 < quarter / whole < 0.30  # a few biases are not divisible


def test_an_update_equals_that_of_jax_pmap_on_eight_devices(on_eight_devices):
    result = on_eight_devices["literal_pmap"]
    assert result["moved"] > 1e-2
    assert result["difference"] < 1e-5 * max(1.0, result["moved"])


def test_devices_say_each_other_the_gradient_and_the_loss_and_nothing_else(on_eight_devices):
    result = on_eight_devices["literal_pmap"]
    assert result["collectives"] == {"all-reduce": result["bytes"] + 4}


def test_a_loaded_model_takes_batches_that_eight_devices_do_not_divide(on_eight_devices):
    result = on_eight_devices["library"]
    assert result["samples"] == result["score"] == [3, 8, 8, 1]
    assert len(result["bpd"]) == 3
    assert result["error"] < 1e-2
    assert result["messages"] == [
        "batch_size=12 must be a positive multiple of the 8 devices.",
        "training.fsdp=3 must be a divisor of the 8 devices.",
    ]
    assert result["parts"] == 4  # of the parameters


def test_rows_that_step_by_parts_stay_on_their_device(on_eight_devices):
    result = on_eight_devices["parts_of_batches"]
    mean, batch, slowest = result["nfe"]
    assert result["difference"] < 1e-2  # both within the tolerance
    assert mean <= batch < slowest
    assert result["bytes"] < 64  # whether all are done, and how far; an image's row has 16 bytes, a batch of them 4096


def test_an_optimal_coupling_is_the_same_on_eight_devices(on_eight_devices):
    result, parts = on_eight_devices["coupling"], coupled.experiment()
    assert result["numbers"] == np.asarray(coupled.batches(parts)(0)[2]).tolist() != list(range(coupled.ROWS))
    np.testing.assert_allclose(result["losses"], coupled.losses(parts, 2), rtol=1e-5)


def test_a_transformer_over_pixels_is_the_same_on_eight_devices(on_eight_devices):
    eight, one = on_eight_devices["pixels"], tiny_pixels.on_these_devices()
    for name in ("losses", "bits"):
        np.testing.assert_allclose(eight[name], one[name], rtol=2e-6)
    assert eight["samples"] == one["samples"]


def test_the_denoising_losses_of_an_audit_are_the_same_on_eight_devices(on_eight_devices):
    np.testing.assert_allclose(on_eight_devices["losses"], member_losses.on_these_devices(), rtol=2e-6)
