"""Audio files to 16 kHz samples, speech spans and log-mel frames."""
