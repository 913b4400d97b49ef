"""What a file says of itself: that it was generated, with what, and for whom.

source_type.py   task + what the sources say --> digital source type (IPTC)
xmp.py           properties --> XMP packet, and back
"""
