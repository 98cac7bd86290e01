"""The script that the executable runs; a file of the package would put its folder on the path."""

from clef_agent.__main__ import main

main()
