"""From start to end: the daemon's way, and what every way shares."""
