"""arrays -> bytes: pictures with their recipe embedded, and small thumbnails."""
