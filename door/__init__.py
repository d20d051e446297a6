"""door: nginx in front of TorchServe. Renders its configuration; knows TorchServe's habits, no image and no model."""
