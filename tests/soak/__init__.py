"""The soak: everything that can go wrong at once and for long, on both stores, then a heal without faults, then the checker.

make soak MINUTES=60 SEED=7
"""
