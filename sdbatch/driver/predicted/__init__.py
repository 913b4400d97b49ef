"""Work before it is done: in TFLOP, seconds, memory and money, by what earlier runs took."""
