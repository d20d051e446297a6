"""Data: data sets, manifests, splits, the pixel cache and the loaders."""
