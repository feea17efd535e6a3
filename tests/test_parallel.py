import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parent / "eight_devices.py"


def run(devices: int, what: str) -> dict:
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    result = subprocess.run(
        [sys.executable, str(SCRIPT), what],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(SCRIPT.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_one_and_eight_devices_train_and_sample_the_same():
    one, eight = run(1, "sharded"), run(8, "sharded")
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert one["noise"] == eight["noise"]  # bit for bit
    for quantity in ("losses", "samples", "bpd"):
        scale = np.abs(one[quantity]).max()
        np.testing.assert_allclose(one[quantity], eight[quantity], rtol=0, atol=1e-5 * scale, err_msg=quantity)
    np.testing.assert_allclose(one["params"], eight["params"], rtol=1e-4, atol=1e-6)
    assert one["nfe"] == eight["nfe"]
    assert len(one["bpd"]) == 11


def test_an_update_equals_that_of_jax_pmap_on_eight_devices():
    result = run(8, "literal_pmap")
    assert result["moved"] > 1e-2
    assert result["difference"] < 1e-5 * max(1.0, result["moved"])


def test_a_loaded_model_takes_batches_that_eight_devices_do_not_divide():
    result = run(8, "library")
    assert result["samples"] == result["score"] == [3, 8, 8, 1]
    assert len(result["bpd"]) == 3
    assert result["error"] < 1e-2
    assert result["message"] == "batch_size=12 must be a positive multiple of the 8 devices."
