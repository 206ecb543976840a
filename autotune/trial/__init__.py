"""The code that runs inside the isolated processes: the template that forks them, and the trial itself."""
