"""Briefs: axes and rows from which a manifest is made."""
