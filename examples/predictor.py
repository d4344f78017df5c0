"""Asks a trained run about pictures in each form that `tfos_job.Predictor` takes: path, bytes, array, Pillow image.

    python examples/predictor.py RUN IMAGE [IMAGE ...]

One line for each picture and form, with tabs between: picture, form, character, probability.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tfos_job import Predictor


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} RUN IMAGE [IMAGE ...]")
    train_dir, *paths = sys.argv[1:]
    predictor = Predictor(train_dir)
    for path in paths:
        with Image.open(path) as image:
            forms = {
                "path": path,
                "bytes": Path(path).read_bytes(),
                "array": np.asarray(image.convert("L")),  # uint8 [h, w], 0 is black
                "Pillow image": image,
            }
            # All pictures of a list are computed together, and answered in order.
            answers = predictor.predict(list(forms.values()), top_k=1)
        for form, answer in zip(forms, answers, strict=True):
            if "error" in answer:
                said = answer["error"]
            elif not answer["top"]:
                said = answer["doubtful"]  # a blank page
            else:
                (guess,) = answer["top"]
                said = f"{guess['character']}\t{guess['probability']:.4f}"
            print(f"{path}\t{form}\t{said}")


if __name__ == "__main__":
    main()
