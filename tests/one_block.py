"""An NCSN++ of one residual block, which compiles in half the time, for tests of what computes with any network."""

from pathlib import Path

import flax.linen as nn

from score_sde.array_types import Keys, ModelImages, PerSample
from score_sde.cond import Cond
from score_sde.models import MODELS, NCSNpp
from score_sde.models.layers import ACTIVATIONS, GroupNorm, conv3x3
from score_sde.models.ncsnpp import ResnetBlockDDPMpp

# Python's argument after -c: the command line, by it.
PROGRAM = f"""
import gc
import sys
gc.set_threshold(100_000)
sys.path.append({str(Path(__file__).parent)!r})
import one_block
from score_sde.cli import main
one_block.use()
sys.exit(main.main())
"""


class OneBlock(NCSNpp):
    """Has the options, the noise level, the dropout and the normalisation of an NCSN++."""

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        act, compute = ACTIVATIONS[self.nonlinearity], self.compute
        temb = self._embed(noise_cond, act)
        if self.num_classes:
            temb = temb + nn.Embed(self.num_classes + 1, temb.shape[-1])(self._classes(cond, len(x)))
        h = compute.features(conv3x3(self.nf)(x))
        block = compute.block(ResnetBlockDDPMpp)
        h = block(act, self.nf, self.dropout, self.skip_rescale, self.init_scale, compute)(h, temb, dropout_keys)
        return conv3x3(x.shape[-1], init_scale=self.init_scale)(GroupNorm(compute, act)(h).astype(x.dtype))


def use() -> None:
    """In a process of its own; in that of the tests the fixture `one_block` does it."""
    MODELS["ncsnpp"] = OneBlock
