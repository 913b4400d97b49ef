"""shards -> rows: the manifest's schema, its streaming read, its checks, and building one from CSV or JSONL."""
