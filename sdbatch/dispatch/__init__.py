"""units -> workers: who does what next (policy, pure) and the two executors that carry it out."""
