"""What users hold, links and chains, and what is derived from them."""
