"""Settings that JAX reads when its backend starts. Imports nothing heavy."""

import os

# XLA:CPU of these versions sends single convolutions to a library that is 1.3 to 1.8 times slower on score networks
# than its own. XLA ends the program at an unknown flag, so it is set only where it was tried.
CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
TRIED = ("0.10.", "0.12.")


def configure() -> None:
    """Appends to the environment's XLA_FLAGS, unless the user has set the same flag; too late once JAX has computed."""
    flags = os.environ.get("XLA_FLAGS", "")
    if CPU_CONVOLUTION_FLAG.split("=")[0] in flags:
        return
    from importlib.metadata import version  # takes half the time of a process that computes nothing

    if version("jaxlib").startswith(TRIED):
        os.environ["XLA_FLAGS"] = f"{flags} {CPU_CONVOLUTION_FLAG}".strip()
