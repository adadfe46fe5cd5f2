"""Attacks: what is read from others, damaged at random, and calls of the interface in any order.

`python -m tests.fuzz --seconds 60` runs every target in a process with limits on memory and time;
`tests/fuzz/findings` keeps what was found once, and the suite tries it again.
"""
