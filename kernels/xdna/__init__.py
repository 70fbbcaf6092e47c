"""AMD's XDNA neural processing units, through XRT."""
