"""Tests: unit (no server), contract (files that must agree), e2e (a real TorchServe)."""
