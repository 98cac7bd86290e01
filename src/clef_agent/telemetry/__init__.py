"""What happened, for whoever watches: events and metrics."""
