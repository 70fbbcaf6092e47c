"""An NPU that is not there: a device that executes designs, and the `pyxrt` in front of it."""
