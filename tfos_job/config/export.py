"""The flags of `export`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import EXPORT_FORMATS, NAMED_CHECKPOINTS, PRETRAINED, SAVED_MODEL
from tfos_job.config.flags import Flags, flag, path, require
from tfos_job.config.own_network import NETWORK, NETWORK_METAVAR
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
    weights: str | None = path(
        "a network without a run, --model_name, by weights that others have trained: a file of Keras's (.h5, .keras) "
        "or the prefix of a TF-Slim checkpoint",
        None,
        metavar="FILE",
        one_of="network",
    )
    model_name: str | None = flag(
        f"with --weights: the network, {' or '.join(PRETRAINED)}. With --train_dir: the run's; fails if it is another. "
        "Needed for one of your own, package.module:function, which is Python that is imported and called",
        None,
        metavar=NETWORK_METAVAR,
        form=NETWORK,
    )
    labels: str | None = path(
        "with --weights: a UTF-8 file of the classes, ID:NAME in each line, or a name in each", None, metavar="FILE"
    )
    image_size: int | None = flag(
        "with --weights: side of its images, in pixels (default: that which it is made for)", None, minimum=75
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
        is_of_run = self.train_dir is not None
        for name in ("labels", "image_size"):
            require(not is_of_run or getattr(self, name) is None, name, "given without --weights")
        for name in ("labels", "model_name"):
            require(is_of_run or getattr(self, name) is not None, name, "needed with --weights")
        is_known = is_of_run or self.model_name in PRETRAINED
        require(
            is_known, f"model_name {self.model_name}", "takes no weights of others", f"Give {' or '.join(PRETRAINED)}"
        )

    @property
    def all_formats(self) -> tuple[str, ...]:
        """The names in `formats`, each once, and `saved_model`."""
        wanted = {SAVED_MODEL, *self.formats.split(",")}
        return tuple(name for name in EXPORT_FORMATS if name in wanted)
