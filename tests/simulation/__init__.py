"""The real engine in a world of its own, by seed: virtual time, programs that die and stop, a store that is slow and fails.

A seed is a whole story: it says how many workers and processes there are, which faults happen and when. The same seed is
the same story, to the byte, so a failure is told in one line and seen again with it:

    PYTHONPATH=tests python -m simulation --seed 17 --trace
"""
