"""What several tests stand on: toy models, servers, stores and workers that do as they are told."""
