"""The packages, found in src/: setuptools cannot look for them under another name than their folder's."""

from setuptools import find_packages, setup

setup(packages=["chainax", *(f"chainax.{name}" for name in find_packages("src"))])
