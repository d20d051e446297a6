"""Image formats: signatures, headers, limits, decoders, colour; `visionserve.images.decode` is their one user."""
