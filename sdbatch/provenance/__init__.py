"""What a file says of itself: that it was generated, with what, and for whom.

source_type.py   task + what the sources say --> digital source type (IPTC)
xmp.py           properties --> XMP packet, and back
credentials.py   certificate and key --> SigningKey
definition.py    how a file came to be --> claims
signing.py       claims + key --> signed file; signed file --> what its credentials say
fingerprint.py   what a picture shows --> 64 bits
"""
