"""Encode log-mel windows to states, with a full or an approximate silent tail."""
