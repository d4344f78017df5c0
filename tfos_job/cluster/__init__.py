"""The life cycle of a TFCluster: who runs where, who talks to whom, who has died."""
