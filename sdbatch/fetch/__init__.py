"""source bytes -> pixels: Pillow and ffmpeg, no torch."""
