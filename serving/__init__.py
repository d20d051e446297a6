"""serving: start TorchServe honestly, and ask a running one; HTTP only, so it imports neither library nor server."""
