"""From log-mel windows to encoder states, over as much of the trailing silence as needed."""
