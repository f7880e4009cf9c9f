"""`python -m hqsod` is `hqsod`."""

from hqsod.cli import main

main()
