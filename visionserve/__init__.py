"""visionserve: classify images.

One implementation for training, packaging, serving and evaluating an image classifier. The library knows no server and
no network; environment variables do not change its results; importing it changes nothing in the process:

    bytes -> images.decode -> transforms.Preprocessing -> engines.Engine -> classifier.Classifier -> responses
"""

__version__ = "1.0.0"
