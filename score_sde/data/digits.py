"""The digits data set: the handwritten 8x8 digits (UCI) in scikit-learn's wheel, as a TFDS builder. No download."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from score_sde.errors import UsageError


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builder of 1,797 grey images, of which every sixth is held out for testing.

    The 17 grey levels 0..16 become 0..255.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "digits"

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation="Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, CC BY 4.0",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(train=True), "test": self._generate_examples(train=False)}

    def _generate_examples(self, train: bool):
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise UsageError("The digits come inside scikit-learn: pip install scikit-learn.") from error
        digits = load_digits()
        pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
        for i, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            if (i % 6 != 5) == train:
                png = io.BytesIO()
                Image.fromarray(image).save(png, format="png")
                png.seek(0)
                yield i, {"image": png, "label": int(label)}
