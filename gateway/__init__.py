"""nginx in front of TorchServe: renders its configuration and runs it; knows nothing of images and models."""
