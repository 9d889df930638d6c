"""`python -m mkwrite`, for where the console script is not on the PATH."""

from .cli import main

main()
