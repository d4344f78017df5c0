"""The flags of `export`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import EXPORT_FORMATS, NAMED_CHECKPOINTS, PRETRAINED, SAVED_MODEL
from tfos_job.config.flags import Flags, flag, path, require
from tfos_job.config.values import TextForm


def _unknown(text: str) -> str:
    """The first name of a list that is no format; empty if all are."""
    return next((name for name in text.split(",") if name not in EXPORT_FORMATS), "")


_FORMATS = TextForm(
    lambda text: not _unknown(text),
    "{!r} is not a list of formats",
    f"Write it as {','.join(EXPORT_FORMATS)}",
    names=EXPORT_FORMATS,
    word=_unknown,
)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Flags):
    """`export`: a checkpoint as a network that needs nothing of this package."""

    train_dir: str | None = path("folder of the run", None, one_of="network")
    model_name: str | None = flag(
        "a network without a run, with --weights that others have trained", None, choices=PRETRAINED, one_of="network"
    )
    weights: str | None = path(
        "with --model_name: its weights, a file of Keras's (.h5, .keras) or the prefix of a TF-Slim checkpoint",
        None,
        metavar="FILE",
    )
    labels: str | None = path(
        "with --model_name: a UTF-8 file of the classes, ID:NAME in each line, or a name in each", None, metavar="FILE"
    )
    image_size: int | None = flag(
        "with --model_name: side of its images, in pixels (default: that which it is made for)", None, minimum=75
    )
    export_dir: str = path("folder of the versions, in TensorFlow Serving's layout; local or on HDFS")
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=NAMED_CHECKPOINTS
    )
    formats: str = flag(
        f"comma-separated: {', '.join(EXPORT_FORMATS)}; the first is always among them. The others take batches of "
        "images alone, and need the extras of their names: pip install 'tfos_job[tflite,onnx]'",
        SAVED_MODEL,
        form=_FORMATS,
    )
    top_k: int = flag("classes in an answer of the exported network; all of them if there are fewer", 5, minimum=1)
    keep_versions: int | None = flag(
        "versions to keep, the new one among them; older ones are removed", None, minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weights", "labels", "image_size"):
            given, wanted = getattr(self, name) is not None, self.model_name is not None
            require(wanted or not given, name, "given without --model_name")
            require(given or not wanted or name == "image_size", name, "needed with --model_name")

    @property
    def all_formats(self) -> tuple[str, ...]:
        """The names in `formats`, each once, and `saved_model`."""
        wanted = {SAVED_MODEL, *self.formats.split(",")}
        return tuple(name for name in EXPORT_FORMATS if name in wanted)
