"""Benchmarks: ``make bench``. They install nothing, and compare side by side in one run."""
