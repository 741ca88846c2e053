"""Workers: claim jobs, run each in a process of its own, and keep what they make."""
