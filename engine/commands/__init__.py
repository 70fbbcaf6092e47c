"""One module a command, each with `run(args) -> exit status`. The only place that writes to the screen."""
