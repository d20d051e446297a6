"""visionserve: what is in this photograph?

One truth for training, packaging, serving and evaluating an image classifier. The library knows no server, no network
and no environment variable:

    bytes -> images.decode -> transforms.Preprocessing -> engines.Engine -> classifier.Classifier -> answers
"""

__version__ = "1.0.0"
