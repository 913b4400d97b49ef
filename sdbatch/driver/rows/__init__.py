"""The rows of a manifest: read to the end, checked, resolved, and kept on this machine's disk."""
