"""Maintainer tools: install, lock, render manifests, update documents, smoke-test, deploy."""
