"""Links that hold chains, or transformations of other libraries."""
