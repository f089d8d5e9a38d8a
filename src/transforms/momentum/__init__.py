"""Links that average gradients over steps."""
