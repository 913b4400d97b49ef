"""Encodes arrays as files: pictures and clips that embed their recipe, and small thumbnails."""
