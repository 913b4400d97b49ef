"""What one run is made of: the rows it makes, its session with the dispatcher, its counts and its records."""
