"""Tasks: each pipeline joins built networks and experts into one call."""
