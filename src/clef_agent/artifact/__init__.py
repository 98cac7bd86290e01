"""The packed artifact: its form, its checks, its making. Pure: no I/O, no framework."""
