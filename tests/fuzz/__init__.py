"""Fuzzing: whatever reads what others wrote is given anything, and answers with nothing but what it promises.

`make test` draws the same few examples each time; `make fuzz MINUTES=5 SEED=7` draws many, at random.
"""
