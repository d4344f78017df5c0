"""Inception-V3 of `keras.applications`, with stable names and with weights determined by a seed.

Source: Szegedy et al. 2015, arXiv 1512.00567, in the layers of `keras.applications.InceptionV3`. Keras names them by
the number of layers that the process has created before. Here a layer's name has its block and its number among the
layers of its kind: `stem_conv2d_0`, `mixed0_conv2d_5` … `mixed10_conv2d_93`. So a block is a scope for
`--trainable_scopes`.

::

    images [B, S, S, C] ─ −1 to 1, grey three times ─ stem ─ mixed0 … mixed10 ─ pool ─ dropout ─ logits num_classes
"""

from __future__ import annotations

import functools

import keras

from tfos_job.networks.dense import Dense
from tfos_job.networks.layers import dropout, glorot

CONVOLUTIONS = {
    "stem": 5,
    **dict.fromkeys(("mixed0", "mixed1", "mixed2"), 7),
    "mixed3": 4,
    **dict.fromkeys(("mixed4", "mixed5", "mixed6", "mixed7"), 10),
    "mixed8": 6,
    **dict.fromkeys(("mixed9", "mixed10"), 9),
}
"""Number of convolutions, each with batch normalisation, in each block, in the order of their creation."""


def build(*, num_classes: int, image_size: int, num_channels: int, keep_prob: float, seed: int) -> keras.Model:
    """Builds the network; see `registry.build` for the arguments.

    Returns:
      A functional model from images float32 [B, S, S, C] in [0, 1] to logits float32 [B, num_classes].
    """
    images = keras.Input((image_size, image_size, num_channels), name="images", dtype="float32")
    x = keras.layers.Rescaling(2.0, offset=-1.0, name="rescale")(images)
    if num_channels == 1:
        x = keras.layers.Concatenate(name="grey_to_rgb")([x, x, x])
    x = _backbone(image_size, seed)(x)
    x = dropout(x, keep_prob, seed, "dropout")
    initializer = glorot(seed, "logits")
    logits = Dense(num_classes, kernel_initializer=initializer, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name="inception_v3")


def _backbone(image_size: int, seed: int) -> keras.Model:
    """Builds the network up to pooled features [B, 2048]. Paths of its variables begin with the layers' names."""
    pattern = _pattern(image_size)
    names = _names(pattern)

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        config["name"] = names[layer.name]
        if "kernel_initializer" in config:
            config["kernel_initializer"] = glorot(seed, config["name"])
        return layer.__class__.from_config(config)

    copied = keras.models.clone_model(pattern, clone_function=copy)
    return keras.Model(copied.input, copied.output, name="backbone")


@functools.cache  # its 300 layers take as long as those of the copy
def _pattern(image_size: int) -> keras.Model:
    """The network without variables: the 22 million are created once, by the copy."""
    with keras.StatelessScope(initialize_variables=False):
        return keras.applications.InceptionV3(
            include_top=False, weights=None, input_shape=(image_size, image_size, 3), pooling="avg"
        )


def _names(pattern: keras.Model) -> dict[str, str]:
    """Returns the name of each of the pattern's layers."""
    blocks = [block for block, count in CONVOLUTIONS.items() for _ in range(count)]
    names = {}
    for kind in {type(layer) for layer in pattern.layers}:
        own = [layer.name for layer in pattern.layers if type(layer) is kind]
        # In the order of creation. The first number is above 0 if the process has created other layers before.
        for number, name in enumerate(sorted(own, key=lambda name: (len(name), name))):
            block = f"{blocks[number]}_" if len(own) == len(blocks) else ""
            stem, _, digits = name.rpartition("_")
            kind_name = stem if digits.isdigit() else name
            ends_block = name.startswith("mixed")
            names[name] = name if ends_block else f"{block}{kind_name}_{number}"
    return names
