"""`tilewhisper npu-check`: the parts of an NPU's set-up, and products of known result on the device, step by step."""
