"""The configuration of `train`: its flags, the combinations that fail, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import (
    BUFFER_LIMIT_BYTES,
    DEFAULT_IMAGE_SIZE,
    DEFAULT_MAX_NUMBER_OF_STEPS,
    FILES,
    GLYPH_LIMIT_BYTES,
    MAX_WHITENED_VALUES,
    NETWORKS,
    PCA,
    PRELOAD_LIMIT_BYTES,
    PRELOADED,
    ZCA,
)
from tfos_job.config.flags import refuse_both, require
from tfos_job.config.train_flags import TrainFlags
from tfos_job.config.values import port_range


def _names(value: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainFlags):
    """`train`: one run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_both(self.max_number_of_steps is not None and self.epoch is not None, "epoch", "max_number_of_steps")
        require(
            self.model_name != "inception_v3" or self.side >= 75,
            "image_size",
            f"{self.side} is less than 75, which inception_v3 needs",
            "Leave it out for 299",
        )
        require(
            self.model_name != "chinese_rec" or self.side % 8 == 0,
            "image_size",
            f"{self.side} is not a multiple of 8",
            "The network halves the image three times",
        )
        require(
            self.rescale_min < self.rescale_max,
            "rescale_min",
            f"{self.rescale_min:g} is not less than --rescale_max {self.rescale_max:g}",
        )
        require(
            not self.checkpoint_exclude_scopes or self.checkpoint_path is not None,
            "checkpoint_exclude_scopes",
            "given without --checkpoint_path",
        )
        refuse_both(
            self.checkpoint_path is not None and self.restore not in ("auto", "none"),
            "checkpoint_path",
            f"restore {self.restore}",
            "--restore goes on with a training and its step, --checkpoint_path begins one with other weights",
        )
        refuse_both(self.overwrite and self.restore != "auto", "overwrite", f"restore {self.restore}")
        refuse_both(self.overwrite and self.change_settings, "change_settings", "overwrite, which starts a new run")

    def require_channels(self, num_channels: int) -> None:
        super().require_channels(num_channels)
        num_values = self.whitened_values(num_channels)
        shape = f"{self.side} × {self.side} × {num_channels}"
        require(
            num_values <= MAX_WHITENED_VALUES,
            "normalization",
            f"{self.normalization} of images of {shape} = {num_values:,} values needs a matrix of "
            f"{num_values**2 * 4 / (1 << 30):,.2f} GiB in each process and checkpoint; up to {MAX_WHITENED_VALUES:,} "
            "values are whitened",
            "Give a smaller --image_size, or --normalization dataset",
        )

    @property
    def side(self) -> int:
        """S, the side of the images that the network sees, in pixels."""
        return self.image_size or NETWORKS.get(self.model_name, DEFAULT_IMAGE_SIZE)

    @property
    def scopes_to_train(self) -> tuple[str, ...]:
        """`--trainable_scopes`; empty for all."""
        return _names(self.trainable_scopes)

    @property
    def scopes_to_exclude(self) -> tuple[str, ...]:
        """`--checkpoint_exclude_scopes`; empty for none."""
        return _names(self.checkpoint_exclude_scopes)

    @property
    def num_workers(self) -> int:
        return self.num_executors - self.num_ps_tasks

    @property
    def ports(self) -> tuple[int, int] | None:
        """First and last port of `--port_range`."""
        return None if self.port_range is None else port_range(self.port_range)

    def whitened_values(self, num_channels: int) -> int:
        """D, the values of an image, for which a matrix of D × D whitens it; 0 without whitening."""
        return self.side**2 * num_channels if self.normalization in (PCA, ZCA) else 0

    def preloaded_bytes(self, num_records: int, num_channels: int = 1) -> int:
        """Memory of a worker that `num_records` take, decoded."""
        return num_records * self.side**2 * num_channels

    def resolved_input_mode(self, num_records: int, num_channels: int = 1) -> str:
        """`preloaded` or `files`; `num_records` are those of the worker with the most."""
        if self.input_mode != "auto":
            return self.input_mode
        return PRELOADED if self.preloaded_bytes(num_records, num_channels) <= PRELOAD_LIMIT_BYTES else FILES

    def buffered_records(self, record_bytes: int) -> int:
        """Records in a worker's shuffle buffer; `record_bytes` is their mean size."""
        if record_bytes <= GLYPH_LIMIT_BYTES:
            return self.shuffle_buffer
        return max(1, min(self.shuffle_buffer, BUFFER_LIMIT_BYTES // record_bytes))

    @property
    def cache_bytes(self) -> int | None:
        """`--cache_gb` in bytes."""
        return None if self.cache_gb is None else int(self.cache_gb * (1 << 30))

    @property
    def replicas_of_step(self) -> int:
        """Batches that are computed at the same time for a step: one, or of all-reduce one for each GPU or worker."""
        return 1 if self.num_ps_tasks else self.num_workers * max(1, self.num_gpus)

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.push_every * self.replicas_of_step

    def total_steps(self, num_records: int) -> int:
        """Global steps of the run on a split of `num_records`: each pass reads each record once."""
        if self.max_number_of_steps is not None:
            return self.max_number_of_steps
        if self.epoch is None:
            return DEFAULT_MAX_NUMBER_OF_STEPS
        return -(-self.epoch * num_records // self.images_per_step)
