"""Images in TFRecord files, as the authors of CelebA-HQ and FFHQ store them (Karras et al., 2018, 2019).

A record is its length (8 bytes), a checksum of that (4), its bytes, and a checksum of these (4), little-endian. Each
is a TensorFlow `Example` of the features `shape` (3, h, w) and `data`, the bytes of a uint8 array of that shape.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np


def tfrecord_images(path: Path, size: int) -> Iterator[np.ndarray]:
    """Images, uint8 (size, size, 3), in the file's order, one at a time in memory.

    Raises `ValueError` where the file is damaged, cut short, or holds other images.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    for record in records(path):
        features = tf_example_pb2.Example.FromString(record).features.feature
        shape, data = list(features["shape"].int64_list.value), features["data"].bytes_list.value
        if shape != [3, size, size] or len(data) != 1:
            raise ValueError(f"an image of shape {shape}, not {[3, size, size]}")
        yield np.frombuffer(data[0], np.uint8).reshape(shape).transpose(1, 2, 0)


def records(path: Path) -> Iterator[bytes]:
    """The bytes of each record. Raises `ValueError` where the file is no TFRecord, damaged or cut short."""
    with path.open("rb") as file:
        while header := file.read(12):
            if len(header) < 12 or header[8:] != masked_crc32c(header[:8]):
                raise ValueError(f"no TFRecord at byte {file.tell() - len(header):,}")
            length = struct.unpack("<Q", header[:8])[0]
            record = file.read(length + 4)
            if len(record) < length + 4:
                raise ValueError("it is cut short")
            if record[length:] != masked_crc32c(record[:length]):
                raise ValueError(f"a damaged record at byte {file.tell() - length - 4:,}")
            yield record[:length]


def masked_crc32c(content: bytes) -> bytes:
    """CRC-32C, rotated and shifted, so that checksums of data that contain checksums stay good ones; little-endian."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
