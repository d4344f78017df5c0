"""Old runs, exports, versions and leftovers: what of them stays, why, and how the rest is removed. See clean.py."""
