"""Designs for the array as MLIR-AIE text, generated from tile plans and read back for checks. See README.md here."""
