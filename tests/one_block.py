"""An NCSN++ of one residual block, which compiles in half the time, for tests of what computes with any network."""

import flax.linen as nn

from score_sde.array_types import Images, PerSample
from score_sde.models import MODELS, NCSNpp
from score_sde.models.layers import ACTIVATIONS, GroupNorm, conv3x3
from score_sde.models.ncsnpp import ResnetBlockDDPMpp


class OneBlock(NCSNpp):
    """Has the options, the noise level, the dropout and the normalisation of an NCSN++."""

    @nn.compact
    def __call__(self, x: Images, label: PerSample, train: bool = False) -> Images:
        act = ACTIVATIONS[self.nonlinearity]
        temb = self._embed(label, act)
        h = conv3x3(self.nf)(x)
        h = ResnetBlockDDPMpp(act, self.nf, self.dropout, self.skip_rescale, self.init_scale)(h, temb, train)
        return conv3x3(x.shape[-1], init_scale=self.init_scale)(act(GroupNorm()(h)))


def use(models: dict = MODELS) -> None:
    """In a process of its own; see the fixture `one_block`."""
    models["ncsnpp"] = OneBlock
