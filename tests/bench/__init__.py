"""What the agent costs: start, requests, memory, swaps, idling. Run by ``nox -s bench``.

Every figure with a floor is a ratio within one run, or a bound that a loaded machine keeps: what
it is compared with runs in turns with it, so that others on the machine slow both alike.
"""
