"""What REST and the web pages read: rows with what belongs to them, and which of them a caller may see."""
