"""The policy: what becomes of a page, decided without doing any I/O.

Sans-I/O: it awaits a machine (two exist: the real one and the model's) and imports none.
Its functions bear the kernel's names, so that each can be read beside its original.
"""
