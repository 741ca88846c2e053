"""Do other seeds give the same features? Overlap metrics, their nulls, and intervals that resample seeds."""
