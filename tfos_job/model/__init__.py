"""Networks, the train step, checkpoints, evaluation and prediction."""
