"""A small residual network for single characters: a tenth of the seed's parameters, a quarter of its time.

In parameter server training parameters are traffic. Nearly all of the seed's 21 million (at 3,755 classes) are in the
two dense layers behind its last feature map; here that map is averaged over the glyph, and of the 2.2 million that are
left half are the classes' own weights. The first convolution halves the image, since on a CPU the layers at full size
take most of the time. benchmarks/README.md has what each part of the recipe is worth.

Sources: He et al. 2015, arXiv 1512.03385 (residual blocks), with the shortcut of He et al. 2018, arXiv 1812.01187 (an
average pool before its 1 × 1 convolution).

::

    images [B, S, S, C] ─ 1 − x ─ stem 32, /2 ─ block1 64, /2 ─ block2 128, /2 ─ block3 256, /2 ─ average of the map
                        ─ dropout ─ logits num_classes
    block: 3 × 3 /2, norm, ReLU, 3 × 3, norm, plus the shortcut, ReLU
"""

from __future__ import annotations

import keras

from tfos_job.networks.dense import Dense
from tfos_job.networks.layers import BatchNorm, dropout, glorot, layer_seed

STEM_FILTERS = 32
BLOCK_FILTERS = (64, 128, 256)


def build(*, num_classes: int, image_size: int, num_channels: int, keep_prob: float, seed: int) -> keras.Model:
    """Builds the network; see `registry.build` for the arguments.

    Returns:
      A functional model from images float32 [B, S, S, C] in [0, 1] to logits float32 [B, num_classes].
    """
    images = keras.Input((image_size, image_size, num_channels), name="images", dtype="float32")
    # Ink is 1 and paper 0, so that a convolution maps paper to 0. Otherwise it maps paper to the sum of its weights,
    # which changes with each step by far more than thin strokes contribute; moving statistics could not follow.
    x = keras.layers.Rescaling(-1.0, offset=1.0, name="ink")(images)
    x = _norm_relu(_conv(x, STEM_FILTERS, 3, 2, seed, "stem"), "stem")
    for number, filters in enumerate(BLOCK_FILTERS, start=1):
        x = _block(x, filters, seed, f"block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = dropout(x, keep_prob, seed, "dropout")
    # float32 at any precision of the other layers: softmax over thousands of classes needs it.
    initializer = glorot(seed, "logits")
    logits = Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name="hanzi_net")


def _block(x: keras.KerasTensor, filters: int, seed: int, name: str) -> keras.KerasTensor:
    """Applies a residual block, which halves the side and has `filters` channels."""
    y = _norm_relu(_conv(x, filters, 3, 2, seed, f"{name}_conv1"), f"{name}_conv1")
    y = BatchNorm(name=f"{name}_conv2_norm")(_conv(y, filters, 3, 1, seed, f"{name}_conv2"))
    # SAME, as in the convolutions: an odd side is rounded up.
    shortcut = keras.layers.AveragePooling2D(2, 2, padding="same", name=f"{name}_shortcut_pool")(x)
    shortcut = _conv(shortcut, filters, 1, 1, seed, f"{name}_shortcut")
    shortcut = BatchNorm(name=f"{name}_shortcut_norm")(shortcut)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([y, shortcut]))


def _conv(x: keras.KerasTensor, filters: int, side: int, stride: int, seed: int, name: str) -> keras.KerasTensor:
    initializer = keras.initializers.HeNormal(seed=layer_seed(seed, name))
    return keras.layers.Conv2D(
        filters, side, stride, padding="same", use_bias=False, kernel_initializer=initializer, name=name
    )(x)


def _norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.ReLU(name=f"{name}_relu")(BatchNorm(name=f"{name}_norm")(x))
