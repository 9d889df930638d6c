"""The Linux ABI and nothing else: typed, no policy, one concern a file.

Importable on every system; a call that the system lacks raises OSError when made.
Constants are carried here because distributions' headers are too old.
"""
