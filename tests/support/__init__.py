"""What tests of several rooms share, and no test.

In: example A and small VAEs, ways to call the command line and torch's launcher, memory, a browser, ArviZ's PSIS.
Out: fixtures (they are in the nearest ``conftest.py``) and what the tests of a single room share (it lies beside them).
"""
