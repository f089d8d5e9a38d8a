"""The engine: what a step does, for any links that keep the protocol."""
