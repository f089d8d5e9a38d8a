"""Links that scale an update by what is known of the curvature, or of past gradients."""
