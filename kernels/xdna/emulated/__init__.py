"""An emulated NPU: a device that executes designs, and a `pyxrt` to drive it."""
