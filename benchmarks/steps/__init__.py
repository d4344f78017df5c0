"""What the programs share that measure a training's steps: the input, the two sides, and the nodes."""
