"""Links that scale updates by estimates of the curvature, or by the size of past gradients."""
