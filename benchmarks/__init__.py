"""Scripts that measure, one a figure in the documentation: `python -m benchmarks.surface`. Not part of the package."""
