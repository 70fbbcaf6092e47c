"""The arguments of each command. Imports neither torch nor numpy."""
