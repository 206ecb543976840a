"""What to do next: pure functions of the study so far. Nothing here runs, writes or waits."""
