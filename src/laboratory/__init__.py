"""Experiments on the order of links: what it does, which orders there are, and which is better."""
