"""commits -> people: progress, summary and gallery. Plain values in, text out."""
