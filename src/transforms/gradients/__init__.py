"""Links that clean, perturb or redirect the gradient."""
