"""The release decision: policies, evidence and the pure function between them. Nothing here needs torch."""
