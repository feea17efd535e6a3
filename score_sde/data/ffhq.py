"""Flickr-Faces-HQ as a TFDS data set; TFDS has no builder for it."""

import tensorflow_datasets as tfds


class FFHQ(tfds.core.GeneratorBasedBuilder):
    """Builder of 70,000 aligned faces at 256x256 or 1024x1024, in one split.

    `score_sde.data.preparers` reads the files.
    """

    name = "ffhq"
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=size, version="1.0.0", description=f"FFHQ at {size}x{size}.")
        for size in ("256", "1024")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = int(self.builder_config.name)
        image = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"image": image}),
            homepage="https://github.com/NVlabs/ffhq-dataset",
            citation="Karras, Laine and Aila (2019), A style-based generator architecture for GANs, CVPR",
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError

    def _generate_examples(self):
        raise NotImplementedError
