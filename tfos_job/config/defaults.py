"""Names and numbers that configurations share with the rooms above."""

DEFAULT_CHARSET_SIZE = 3755
DEFAULT_IMAGE_SIZE = 64
GNT, IMAGES = "gnt", "images"
DATASET_NAMES = (GNT, IMAGES)
"""The readers of datasets, described in formats/readers.py."""
DEFAULT_MAX_NUMBER_OF_STEPS = 16_002
LENGTHS = ("max_number_of_steps", "epoch")
"""Two flags of `train` for the same: one that is given replaces the other one, of a recipe or of a run."""
NETWORKS = {"chinese_rec": 64, "hanzi_net": 64, "inception_v3": 299}
"""The registered networks, and the side of the images, in pixels, that each one is made for."""
EXPONENTIAL, COSINE = "exponential", "cosine"
DECAY_TYPES = (EXPONENTIAL, COSINE, "fixed")
FLOAT32, BFLOAT16 = "float32", "bfloat16"
WIRE_BYTES = {FLOAT32: 4, BFLOAT16: 2}
"""The types that variables and gradients may travel in, and the bytes of a number in each."""
PRELOADED, FILES = "preloaded", "files"
PS_PLACEMENTS = ROUND_ROBIN, GREEDY, PARTITIONED = "round_robin", "greedy", "partitioned"
NO_NORMALIZATION, PER_IMAGE, PER_IMAGE_MEAN, PER_IMAGE_RESCALE = (
    "none",
    "per_image",
    "per_image_mean",
    "per_image_rescale",
)
RESCALE, DATASET, PCA, ZCA = "rescale", "dataset", "pca", "zca"
NORMALIZATIONS = (NO_NORMALIZATION, PER_IMAGE, PER_IMAGE_MEAN, PER_IMAGE_RESCALE, RESCALE, DATASET, PCA, ZCA)
FILL_MODES = AUTO_FILL, CONSTANT, NEAREST, REFLECT, WRAP = "auto", "constant", "nearest", "reflect", "wrap"
# Values of an image, up to which it is whitened: the matrix has that many squared, 64 MiB in float32. It lies in every
# checkpoint, and a multiplication by it is done for each image.
MAX_WHITENED_VALUES = 4096
NAMED_CHECKPOINTS = ("last", "best")
"""The words for a checkpoint of a run; any other is a path."""
PARQUET, JSON_LINES = "parquet", "jsonl"
RESULT_FORMATS = (PARQUET, JSON_LINES)
"""Values of `infer --output_format`, which are the endings of the files."""
PREDICTED_BATCH = 64
"""Pictures that `predict` looks at together: more would hardly be faster, and the first answers would come later."""
SAVED_MODEL, TFLITE, ONNX = "saved_model", "tflite", "onnx"
KERAS_SUFFIXES = (".h5", ".keras")
"""Of files of weights that Keras has written."""
PRETRAINED = ("inception_v3",)
"""Networks that `export` takes with weights that others have trained."""
EXPORT_FORMATS = (SAVED_MODEL, TFLITE, ONNX)
OUTCOMES, EVENTS, SUBMISSIONS = "outcomes", "spark-events", "submissions"
"""Folders below `submit --hdfs_dir`."""
STDIN = "-"
"""The picture's name that stands for standard input."""
BRIGHTNESS, CONTRAST = 0.3, 0.2  # the seed job's
# A worker's decoded part, one byte a pixel, up to which `--input_mode auto` keeps it in memory. All of HWDB1.1's
# training split (0.9 million glyphs of 64 × 64) divided between two workers is below it.
PRELOAD_LIMIT_BYTES = 2 << 30
# The bytes that a worker's shuffle buffer may hold, with `--input_mode files`, if records are larger than glyphs.
BUFFER_LIMIT_BYTES = 512 << 20
GLYPH_LIMIT_BYTES = 16 << 10
