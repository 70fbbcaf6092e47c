"""Backends that run on the host processor."""
