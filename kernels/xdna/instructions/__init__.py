"""The NPU's own instruction stream: the words that `aiecc` writes and the NPU's firmware executes."""
