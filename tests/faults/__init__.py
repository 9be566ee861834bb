"""Campaigns that try to break the project from outside: `make faults` runs them all.

A campaign is many cases of one kind of fault. Case k of a campaign draws all that it needs from a
generator with the seed (SEED, the campaign's name, k), so that it can be repeated alone.
"""
