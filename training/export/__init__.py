"""Export: checkpoint -> ONNX -> int8 -> gates -> archive."""
