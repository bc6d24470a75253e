"""Measurements, one file per claim; each runs its rivals beside Octavo.

``python -m benchmarks SUITE [--only CLAIM]`` prints a table and writes ``results/*.json`` with
the commit and the machine. A new claim is a module with ``add_arguments`` and ``run`` and one
line in ``benchmarks.__main__.SUITES``.
"""
