"""Designs for the array as MLIR-AIE text, made from tile plans and read back to be checked. See README.md here."""
