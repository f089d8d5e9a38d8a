"""Links that bound or normalize the size of an update."""
