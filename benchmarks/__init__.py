"""
What txbits costs, measured over loopback beside servers that do less.

``python -m benchmarks`` runs everything; ``README.md`` describes the comparisons.
"""
