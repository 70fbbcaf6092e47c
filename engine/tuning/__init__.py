"""Measure and choose: autotuner, benchmark, profile, and the NPU cost plan."""
