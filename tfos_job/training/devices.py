"""The GPUs that TensorFlow sees, for those that must not import it (`host/calls.py`)."""

from __future__ import annotations

from tfos_job.errors import SettingsError
from tfos_job.host import calls


def names(_: object) -> list[str]:
    """The name of each GPU that CUDA_VISIBLE_DEVICES lets this process see.

    Raises:
      SettingsError: TensorFlow cannot be imported.
    """
    try:
        import tensorflow as tf
    except Exception as error:
        raise SettingsError(f"importing TensorFlow ends with {type(error).__name__}: {error}") from error
    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]


if __name__ == "__main__":
    calls.answer(names)
