"""The links, one family a module."""
