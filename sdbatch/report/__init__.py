"""Shows people the commits: progress, summary and gallery. Plain values go in, text comes out."""
