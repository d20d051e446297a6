"""gateway: nginx in front of TorchServe. Renders its configuration; knows no image and no model."""
