"""The rows of layers that are neither of images nor of sequences."""

from ... import layers
from .entry import Entry
from .making import backward, ids, normal


def single_layers() -> list[Entry]:
    wide, tall = normal(256, 1024), normal(4096, 768)
    return [
        Entry("dense 1024 -> 1024, batch 256", backward(layers.dense(1024, 1024), wide)),
        Entry("dense 16 -> 8, batch 1", backward(layers.dense(16, 8), normal(1, 16))),
        *(Entry(f"{a.name} 4096 x 768", backward(a, tall)) for a in (layers.relu(), layers.gelu(approximate=True))),
        Entry("softmax 4096 x 768", backward(layers.softmax(), tall)),
        Entry("layer_norm 4096 x 768", backward(layers.layer_norm(768), tall)),
        Entry("rms_norm 4096 x 768", backward(layers.rms_norm(768), tall)),
        Entry("group_norm 8 of 64, 32x16x16x64", backward(layers.group_norm(8, 64), normal(32, 16, 16, 64))),
        Entry("batch_norm 32x16x16x64", backward(layers.batch_norm(64), normal(32, 16, 16, 64))),
        Entry("swiglu 512 -> 1368, 2048 rows", backward(layers.swiglu(512, 1368), normal(2048, 512)), temp=0.60),
        Entry("embedding 50257 x 256, 4096 ids", backward(layers.embedding(50257, 256), ids(50257, 4096))),
        Entry("embedding 65 x 128, 4096 ids", backward(layers.embedding(65, 128), ids(65, 4096))),
    ]
