"""Links that set the length of the step."""
